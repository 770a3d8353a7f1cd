// One function a route. The application in the query is the one that the console shows.
import { call, get } from "./client";
import type { Query } from "./query";
import type * as t from "./types";
import { appQuery, v1 } from "../lib/asks";
import { currentApp } from "../lib/router";

const part = encodeURIComponent;
const app = (query: Query = {}): Query => ({ ...appQuery(currentApp()), ...query });

/** What a change carries besides its content. */
export interface Guard { etag?: string | undefined; key?: string | undefined }

// Looking.
export const me = () => get<t.Me>(`${v1}/me`);
export const options = () => get<t.SignInOptions>("/auth/options");
export const applications = () => get<{ applications: t.Application[] }>(`${v1}/applications`);
export const overview = () => get<t.Overview>(`${v1}/overview`, app());
export const versionChart = (q: { channel?: string; arch?: string; from?: string; to?: string }) => get<t.VersionChart>(`${v1}/charts/versions`, app(q));
export const machines = (q: Query) => get<t.Machines>(`${v1}/machines`, app(q));
export const machine = (id: string) => get<t.MachineDetail>(`${v1}/machines/${part(id)}`, app());
export const channels = () => get<{ channels: t.Channel[] }>(`${v1}/channels`, app());
export const releases = () => get<{ releases: t.Release[] }>(`${v1}/releases`, app());
export const release = (arch: string, version: string) => get<t.ReleaseDetail>(`${v1}/releases/${part(version)}`, app({ arch }));
export const packages = (arch: string, version: string, against?: string) => get<t.Packages>(`${v1}/releases/${part(version)}/packages`, app({ arch, against }));
export const rollouts = () => get<{ rollouts: t.Rollout[] }>(`${v1}/rollouts`, app());
export const rollout = (id: string) => get<t.RolloutDetail>(`${v1}/rollouts/${part(id)}`);
export const progress = (id: string | number) => get<t.Progress>(`${v1}/rollouts/${part(String(id))}/progress`);
export const groups = () => get<{ groups: t.Group[] }>(`${v1}/groups`, app());
export const group = (name: string, after?: string) => get<t.Members>(`${v1}/groups/${part(name)}`, app({ after, limit: 100 }));
export const reboots = () => get<{ groups: t.RebootGroup[] }>(`${v1}/reboots`);
export const tokens = () => get<{ tokens: t.Token[] }>(`${v1}/tokens`);
export const people = () => get<{ people: t.Person[] }>(`${v1}/people`);
export const webhooks = () => get<{ webhooks: t.Webhook[] }>(`${v1}/webhooks`);
export const audit = (q: Query) => get<t.Audits>(`${v1}/audit`, q);

// Signing in and out.
export const signInByLink = (secret: string) => call<t.Me>("POST", "/auth/link", { body: { secret } });
export const signInByToken = (token: string) => call<t.Me>("POST", "/auth/token", { body: { token } });
export const signOut = () => call("POST", "/auth/sign-out", { body: {} });

// Rollouts and releases.
export const preview = (n: t.NewRollout, signal?: AbortSignal) => call<t.Preview>("POST", `${v1}/rollouts/preview`, { query: app(), body: n, signal });
export const planRollout = (n: t.NewRollout, g: Guard) => call<t.Rollout>("POST", `${v1}/rollouts`, { query: app(), body: n, ...g });
export const steer = (id: number, verb: string, reason: string, g: Guard) => call<t.Rollout>("POST", `${v1}/rollouts/${id}/${verb}`, { body: { reason }, ...g });
export const setChannel = (name: string, arch: string, version: string, g: Guard) => call("PUT", `${v1}/channels/${part(name)}`, { query: app({ arch }), body: { version }, ...g });
export const withdraw = (arch: string, version: string, reason: string, g: Guard) => call("PUT", `${v1}/releases/${part(version)}/withdrawal`, { query: app({ arch }), body: { reason }, ...g });
export const restore = (arch: string, version: string, reason: string, g: Guard) => call("DELETE", `${v1}/releases/${part(version)}/withdrawal`, { query: app({ arch }), body: { reason }, ...g });
export const markRelease = (arch: string, version: string, road: string, reason: string, g: Guard) => call("PUT", `${v1}/releases/${part(version)}/road`, { query: app({ arch }), body: { road, reason }, ...g });

// Machines and groups.
export const pin = (id: string, version: string, reason: string) => call("PUT", `${v1}/machines/${part(id)}/pin`, { query: app(), body: { version, reason } });
export const unpin = (id: string) => call("DELETE", `${v1}/machines/${part(id)}/pin`, { query: app() });
export const forgetFailures = (id: string) => call("DELETE", `${v1}/machines/${part(id)}/failures`, { query: app() });
export const setMember = (id: string, group: string) => call("PUT", `${v1}/machines/${part(id)}/group`, { query: app(), body: { group } });
export const putGroup = (name: string) => call("PUT", `${v1}/groups/${part(name)}`, { query: app() });
export const deleteGroup = (name: string, g: Guard = {}) => call("DELETE", `${v1}/groups/${part(name)}`, { query: app(), ...g });

// Reboot locks.
export const setReboots = (name: string, slots: number, lease: string, g: Guard) => call("PUT", `${v1}/reboots/${part(name)}`, { body: { slots, lease }, ...g });
export const releaseSlot = (name: string, id: string, reason: string) => call("DELETE", `${v1}/reboots/${part(name)}/holders/${part(id)}`, { body: { reason } });

// Who may do what, and who hears of it.
export const newToken = (role: t.Role, label: string, g: Guard) => call<t.Token>("POST", `${v1}/tokens`, { body: { role, label }, ...g });
export const revokeToken = (id: string) => call("DELETE", `${v1}/tokens/${part(id)}`);
export const setRole = (id: string, role: string) => call("PUT", `${v1}/people/${part(id)}`, { body: { role } });
export const removePerson = (id: string) => call("DELETE", `${v1}/people/${part(id)}`);
export const newWebhook = (url: string, events: string[], g: Guard) => call<t.Webhook>("POST", `${v1}/webhooks`, { body: { url, events }, ...g });
export const removeWebhook = (id: string | number) => call("DELETE", `${v1}/webhooks/${part(String(id))}`);
export const testWebhook = (id: string | number, g: Guard) => call("POST", `${v1}/webhooks/${part(String(id))}/test`, { body: {}, ...g });
