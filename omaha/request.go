package omaha

import (
	"slices"
	"strings"
)

// Request is what one machine says in one POST.
type Request struct {
	Version        string // the client program and its version, "update_engine-0.4.10"
	UpdaterVersion string // the same again, as update_engine sends it
	InstallSource  string // InstallScheduler or InstallOnDemand
	IsMachine      bool
	UserID         string // go-omaha's name for the machine id
	SessionID      string
	RequestID      string
	OS             OS
	Apps           []AppRequest
}

// Values of Request.InstallSource.
const (
	InstallScheduler = "scheduler"      // the machine's own timer
	InstallOnDemand  = "ondemandupdate" // a person asked
)

// OS describes what the application runs on. Flatcar's Platform and Version are constants and tell nothing.
type OS struct {
	Platform    string
	Version     string
	ServicePack string // "<application's version>_<uname -m>"
	Arch        string // "x64"; Flatcar leaves it out
}

// AppRequest is what a machine says about one application. Ping and UpdateCheck tell whether the element was there.
type AppRequest struct {
	ID            string // "{uuid}"
	Version       string // the running version
	Track         string // the channel
	MachineID     string // 32 hex digits of /etc/machine-id
	MachineAlias  string // a name that people gave
	BootID        string // "{uuid}", new at every boot
	Board         string // "amd64-usr", "arm64-usr"
	OEM           string // the platform: "qemu", "azure"
	OEMVersion    string
	AlephVersion  string // the version that was installed first
	HardwareClass string
	Lang          string
	DeltaOK       bool
	Ping          bool
	UpdateCheck   bool
	Events        []Event
}

// Machine returns the id that names the machine: MachineID, or UserID where a client only sends that.
func (r *Request) Machine(app *AppRequest) string {
	if app.MachineID != "" {
		return app.MachineID
	}
	return r.UserID
}

// Arch returns the architecture in Debian's words, "amd64" or "arm64", or "" when the request does not tell.
// Flatcar's clients only tell it by the board and inside the service pack, go-omaha's by the OS element.
func (r *Request) Arch(app *AppRequest) string {
	board, _, _ := strings.Cut(app.Board, "-")
	_, machine, _ := strings.Cut(r.OS.ServicePack, "_")
	for _, word := range []string{board, r.OS.Arch, machine} {
		for _, a := range architectures {
			if slices.Contains(a.words, strings.ToLower(word)) {
				return a.name
			}
		}
	}
	return ""
}

var architectures = []struct {
	name  string
	words []string
}{
	{"amd64", []string{"amd64", "x64", "x86_64", "x86-64"}},
	{"arm64", []string{"arm64", "aarch64"}},
}

// Event is one step of an update. The constructors below make the ones that Semper's agent sends.
type Event struct {
	Type            EventType
	Result          EventResult
	ErrorCode       ErrorCode // 0 unless Result is ResultError
	PreviousVersion string    // of a completion: the version that was left
	NextVersion     string    // the version attempted; Flatcar's client never says
	Reason          string    // for people; at most MaxReason bytes
}

// DownloadStarted says that the payload of version next is being fetched (13/1).
func DownloadStarted(next string) Event {
	return Event{Type: EventDownloadStarted, Result: ResultSuccess, NextVersion: next}
}

// DownloadFinished says that the payload of version next has arrived (14/1).
func DownloadFinished(next string) Event {
	return Event{Type: EventDownloadFinished, Result: ResultSuccess, NextVersion: next}
}

// Installed says that version next is in the idle slot and waits for the reboot (3/1).
func Installed(next string) Event {
	return Event{Type: EventUpdateComplete, Result: ResultSuccess, NextVersion: next}
}

// Completed says that the machine runs, healthy, a version that it did not run before: previous is the one it left (3/2).
func Completed(previous string) Event {
	return Event{Type: EventUpdateComplete, Result: ResultSuccessReboot, PreviousVersion: previous}
}

// Failed says that the update to version next ended with code, for the reason given (3/0).
func Failed(next string, code ErrorCode, reason string) Event {
	return Event{Type: EventUpdateComplete, Result: ResultError, ErrorCode: code, NextVersion: next, Reason: reason}
}

// Deferred reports that the reboot into next is put off, for instance because a drain hook failed.
func Deferred(next, reason string) Event {
	return Event{Type: EventUpdateComplete, Result: ResultDeferred, NextVersion: next, Reason: reason}
}

// Sick reports that version, which runs, became unhealthy after its blessing. The code is a passing one: whether that speaks against the version is for
// people and rollouts to decide.
func Sick(version, reason string) Event {
	return Failed(version, CodeError, "unhealthy after its blessing: "+reason)
}

// RolledBack says that version next was booted and given up, so that the machine runs its old version again (3/0, code 44).
func RolledBack(next, reason string) Event { return Failed(next, CodeRollback, reason) }

// Completion reports whether e says that an update was carried through. Flatcar's client sends 3/2 with every check: with "0.0.0.0" right
// after the installation and with an empty previous version later, and neither completes anything.
func (e *Event) Completion() bool {
	return e.Type == EventUpdateComplete && e.Result == ResultSuccessReboot && !noVersion(e.PreviousVersion)
}

// Idle reports whether e is the 3/2 that Flatcar's client adds to every check and that says nothing.
func (e *Event) Idle() bool {
	return e.Type == EventUpdateComplete && e.Result == ResultSuccessReboot && noVersion(e.PreviousVersion)
}

func noVersion(v string) bool { return v == "" || v == "0.0.0.0" }
