package api

import "github.com/semper-os/semper/omaha/server/fleet"

// Operation is a route of the REST interface: what the server serves, what its OpenAPI document says, and what a client calls.
type Operation struct {
	Name    string // of the call, in a client
	Pattern string // method and path, as net/http has them
	Role    fleet.Role
	Summary string
	Query   []Parameter
	Body    any    // a value of its type; nil: there is none
	Answer  any    // likewise
	Raw     string // the media type of what is no JSON: the body of a PUT, the answer of a GET
}

// Parameter is one of an operation's query. All can be left out.
type Parameter struct{ Name, Meaning string }

// The parameters that many operations have.
var (
	ofApp   = Parameter{"app", "an application's id or name; " + DefaultApp + " when it is missing"}
	ofArch  = Parameter{"arch", "an architecture; " + DefaultArch + " when it is missing"}
	ofAfter = Parameter{"after", "the next of the page before"}
	ofLimit = Parameter{"limit", "entries of a page, 1 to 1000"}

	ofText   = Parameter{"text", "a part of one of the texts, in either case"}
	ofSize   = Parameter{"size", "the file's bytes"}
	ofOffset = Parameter{"offset", "where the body begins: what has arrived so far"}
)

// machineFilters are what machines are searched by.
var machineFilters = []Parameter{
	ofApp,
	{"text", "the beginning of an id, or else a part of an id, an alias or an address"},
	{"version", "that they run"},
	{"channel", "that they follow"},
	{"arch", "all when it is missing"},
	{"group", "that they are in"},
	{"state", "unknown, granted, downloading, downloaded, installed, complete or failed; several with commas between them"},
	{"platform", "a part of what they run on, in either case"},
	{"silent_for", "a duration such as 48h: not seen for so long"},
	{"seen_within", "a duration: seen since then"},
	{"silent", "1: those that fell silent in a rollout under way"},
	{"retired", "1: those that do not count any more"},
	ofAfter, ofLimit,
}

// Operations lists the whole interface.
var Operations = []Operation{
	{"Applications", "GET /api/v1/applications", fleet.Viewer, "list the applications", nil, nil, Applications{}, ""},
	{"Channels", "GET /api/v1/channels", fleet.Viewer, "list an application's channels", []Parameter{ofApp}, nil, Channels{}, ""},
	{"SetChannel", "PUT /api/v1/channels/{name}", fleet.Publisher, "make a published release the current one of a channel", []Parameter{ofApp, ofArch}, SetChannel{}, Channel{}, ""},
	{"Freshness", "GET /api/v1/channels/{name}/freshness", fleet.Viewer, "a channel's freshness statement, in its envelope", []Parameter{ofApp, ofArch}, nil, nil, "application/json"},
	{"PutFreshness", "PUT /api/v1/channels/{name}/freshness", fleet.Publisher, "replace a channel's freshness statement by a newer one", []Parameter{ofApp, ofArch}, nil, Freshness{}, "application/json"},
	{"Releases", "GET /api/v1/releases", fleet.Viewer, "list an application's releases", []Parameter{ofApp}, nil, Releases{}, ""},
	{"Release", "GET /api/v1/releases/{version}", fleet.Viewer, "a release with its manifest", []Parameter{ofApp, ofArch}, nil, ReleaseDetail{}, ""},
	{"PutRelease", "PUT /api/v1/releases/{version}", fleet.Publisher, "publish a release whose payload was uploaded, or is somewhere else", []Parameter{ofApp, ofArch}, NewRelease{}, Release{}, ""},
	{"Machines", "GET /api/v1/machines", fleet.Viewer, "list machines, or search for some, by id", machineFilters, nil, Machines{}, ""},
	{"Machine", "GET /api/v1/machines/{id}", fleet.Viewer, "a machine with its history", []Parameter{ofApp}, nil, MachineDetail{}, ""},
	{"Why", "GET /api/v1/machines/{id}/why", fleet.Viewer, "why a machine gets an update or does not", []Parameter{ofApp}, nil, Why{}, ""},
	{"PutPin", "PUT /api/v1/machines/{id}/pin", fleet.Operator, "keep a machine to a version, or where it is", []Parameter{ofApp}, Pin{}, Pin{}, ""},
	{"DeletePin", "DELETE /api/v1/machines/{id}/pin", fleet.Operator, "let a machine have its channel's release again", []Parameter{ofApp}, nil, Nothing{}, ""},
	{"ForgetFailures", "DELETE /api/v1/machines/{id}/failures", fleet.Operator, "let a machine have the versions again that failed on it", []Parameter{ofApp}, nil, Forgotten{}, ""},
	{"PutMember", "PUT /api/v1/machines/{id}/group", fleet.Operator, "put a machine into a group, out of the one it was in", []Parameter{ofApp}, Member{}, Member{}, ""},
	{"Groups", "GET /api/v1/groups", fleet.Viewer, "list an application's groups", []Parameter{ofApp}, nil, Groups{}, ""},
	{"Group", "GET /api/v1/groups/{name}", fleet.Viewer, "a group with its machines", []Parameter{ofApp, ofAfter, ofLimit}, nil, Members{}, ""},
	{"PutGroup", "PUT /api/v1/groups/{name}", fleet.Operator, "make a group; one that is there stays as it is", []Parameter{ofApp}, nil, Group{}, ""},
	{"DeleteGroup", "DELETE /api/v1/groups/{name}", fleet.Operator, "forget a group; its machines are in none then", []Parameter{ofApp}, nil, Nothing{}, ""},
	{"Rollouts", "GET /api/v1/rollouts", fleet.Viewer, "list rollouts, newest first", []Parameter{ofApp}, nil, Rollouts{}, ""},
	{"PlanRollout", "POST /api/v1/rollouts", fleet.Operator, "plan a rollout, and start it where that is asked for", []Parameter{ofApp}, NewRollout{}, Rollout{}, ""},
	{"Rollout", "GET /api/v1/rollouts/{id}", fleet.Viewer, "a rollout with its failures and the curve of its plan", nil, nil, RolloutDetail{}, ""},
	{"SteerRollout", "POST /api/v1/rollouts/{id}/{verb}", fleet.Operator, "start, pause, resume or abort a rollout", nil, Steer{}, Rollout{}, ""},
	{"MarkRelease", "PUT /api/v1/releases/{version}/road", fleet.Operator, "say what a release is on the way to newer ones", []Parameter{ofApp, ofArch}, Road{}, Release{}, ""},
	{"Withdraw", "PUT /api/v1/releases/{version}/withdrawal", fleet.Operator, "offer a release to nobody any more", []Parameter{ofApp, ofArch}, Steer{}, Release{}, ""},
	{"Restore", "DELETE /api/v1/releases/{version}/withdrawal", fleet.Operator, "offer a release that was withdrawn again", []Parameter{ofApp, ofArch}, Steer{}, Release{}, ""},
	{"PreviewRollout", "POST /api/v1/rollouts/preview", fleet.Viewer, "what a rollout would do", []Parameter{ofApp}, NewRollout{}, Preview{}, ""},
	{"Progress", "GET /api/v1/rollouts/{id}/progress", fleet.Viewer, "how far a rollout was, over time", nil, nil, Progress{}, ""},
	{"Packages", "GET /api/v1/releases/{version}/packages", fleet.Viewer, "what a release is made of, and what is other in it", []Parameter{ofApp, ofArch, {"against", "the release to compare with; the one published before it when it is missing"}}, nil, Packages{}, ""},
	{"Overview", "GET /api/v1/overview", fleet.Viewer, "the fleet, what needs a person first", []Parameter{ofApp}, nil, Overview{}, ""},
	{"VersionChart", "GET /api/v1/charts/versions", fleet.Viewer, "how many machines ran each version, over time", []Parameter{ofApp, {"channel", "all when it is missing"}, {"arch", "all when it is missing"}, {"from", "a time; a week ago when it is missing"}, {"to", "a time; now when it is missing"}}, nil, Chart{}, ""},
	{"RebootGroups", "GET /api/v1/reboots", fleet.Viewer, "list reboot groups, who has a slot and who waits for one", nil, nil, RebootGroups{}, ""},
	{"SetRebootGroup", "PUT /api/v1/reboots/{name}", fleet.Operator, "make a reboot group, or change how many of its machines may be down at once", nil, SetRebootGroup{}, RebootGroup{}, ""},
	{"ReleaseReboot", "DELETE /api/v1/reboots/{name}/holders/{id}", fleet.Operator, "take a machine's slot, or its place in the queue, away", nil, Steer{}, Nothing{}, ""},
	{"PutApplication", "PUT /api/v1/applications/{name}", fleet.Admin, "add an application", nil, NewApplication{}, Application{}, ""},
	{"Tokens", "GET /api/v1/tokens", fleet.Admin, "list tokens", nil, nil, Tokens{}, ""},
	{"NewToken", "POST /api/v1/tokens", fleet.Admin, "make a token; it is told once", nil, NewToken{}, MadeToken{}, ""},
	{"RevokeToken", "DELETE /api/v1/tokens/{id}", fleet.Admin, "make a token worthless", nil, nil, Nothing{}, ""},
	{"Webhooks", "GET /api/v1/webhooks", fleet.Admin, "list webhooks, and whether they could be told", nil, nil, Webhooks{}, ""},
	{"NewWebhook", "POST /api/v1/webhooks", fleet.Admin, "have an address told of what happens; the secret that signs it is told once", nil, NewWebhook{}, MadeWebhook{}, ""},
	{"DeleteWebhook", "DELETE /api/v1/webhooks/{id}", fleet.Admin, "forget a webhook, and what it was not told yet", nil, nil, Nothing{}, ""},
	{"TestWebhook", "POST /api/v1/webhooks/{id}/test", fleet.Admin, "have a webhook told that this is a test", nil, nil, Nothing{}, ""},
	{"Feed", "GET /api/v1/feed", fleet.Viewer, "be told when something changes, as server-sent events: the event changed, with the names of what did", []Parameter{ofApp}, nil, nil, "text/event-stream"},
	{"Audit", "GET /api/v1/audit", fleet.Viewer, "list what was changed, newest first", []Parameter{{"before", "the next of the page before"}, ofText, ofLimit}, nil, Audits{}, ""},
	{"Blob", "GET /api/v1/blobs/{sha256}", fleet.Publisher, "how much of a file has arrived", nil, nil, Blob{}, ""},
	{"PutBlob", "PUT /api/v1/blobs/{sha256}", fleet.Publisher, "upload a file, or the rest of one", []Parameter{ofSize, ofOffset}, nil, Blob{}, "application/octet-stream"},
	{"Me", "GET /api/v1/me", fleet.Viewer, "who asks, and what they may do", nil, nil, Me{}, ""},
	{"People", "GET /api/v1/people", fleet.Admin, "list people, by name", nil, nil, People{}, ""},
	{"PutPerson", "PUT /api/v1/people/{id}", fleet.Admin, "give a person a role, or leave it to the groups again", nil, SetRole{}, Person{}, ""},
	{"DeletePerson", "DELETE /api/v1/people/{id}", fleet.Admin, "forget a person, and end all their sessions", nil, nil, Nothing{}, ""},
}

// Nothing is the answer to what leaves nothing to tell.
type Nothing struct{}
