// The messages of the REST interface, as package api has them. Times are texts as in RFC 3339; Go's zero time means none.

export type Role = "viewer" | "operator" | "publisher" | "admin";

export interface Me { name: string; via: string; role: Role; csrf?: string }
export interface SignInOptions { oidc: { name: string } | null; link: boolean }

export interface Application { id: string; name: string; created: string }
export interface Channel { name: string; arch: string; version: string; updated: string; etag?: string; freshness: Freshness | null }
export interface Freshness { version: string; issued: string; expires: string; sequence: number }

export interface PayloadFile { name: string; size: number; sha256: string }
export interface Release {
  version: string; arch: string; min_version: string; road?: string; road_why?: string; published: string;
  payload: PayloadFile; urls?: string[]; withdrawn?: string; withdrawn_why?: string;
}
export interface ReleaseDetail extends Release { manifest: string | null; signature: string | null }
export interface Package { name: string; version: string; size?: number }
export interface Change { name: string; from: string; to: string }
export interface Packages { packages: Package[]; changes: Change[] | null; against?: string }

export interface Machine {
  id: string; alias: string; arch: string; version: string; channel: string; state: string; state_since: string; target: string; detail: string;
  platform: string; first_version: string; boot_id: string; address: string; first_seen: string; last_seen: string; retired?: string; group?: string;
}
export interface Machines { machines: Machine[]; next?: string; total?: number | null }
export interface Why { offer: string; cause: string; sentence: string; next?: string; rollout?: number }
export interface FailedVersion { version: string; at: string; code: number; reason: string }
export interface MachineEvent {
  at: string; type: number; result: number; code: number; version: string; previous_version: string; next_version: string; reason: string; sentence: string;
}
export interface Pin { version: string; reason: string; by: string; at?: string }
export interface MachineDetail extends Machine { why: Why; failed_versions: FailedVersion[]; events: MachineEvent[]; pin?: Pin | null }

export interface Wave { after: string; percent: number }
export interface Plan {
  canary?: { group?: string; need?: number; healthy?: string; failures?: number };
  waves?: Wave[];
  ramp?: { start?: number; over?: string };
  limits?: { at_once?: number; per_period?: number; period?: string };
  windows?: { times?: string[]; zone?: string };
  halt?: { failures?: number; percent?: number; sample?: number; silent_after?: string };
}
export interface Count { granted: number; in_flight: number; complete: number; failed: number; silent: number }
export interface Counters { all: Count; canary: Count; period?: string; grants: number }
export type RolloutState = "draft" | "canary" | "ramping" | "paused" | "halted" | "aborted" | "done";
export interface Rollout {
  id: number; version: string; channel: string; arch: string; state: RolloutState; since: string; why: string; by: string; reached: number;
  plan: Plan; counted: Counters; created: string; created_by: string;
}
export interface RolloutFailure { machine: string; alias: string; step: string; canary: boolean; at: string; why: string }
export interface RolloutDetail extends Rollout { failures: RolloutFailure[]; preview: { after_ns: number; share: number; machines: number }[] }
export interface NewRollout { version: string; channel: string; arch: string; plan: Plan; start: boolean }
export interface Preview { machines: number; canaries: number; points: { after_ns: number; share: number; machines: number }[]; warnings: string[] | null }
export interface Progress { machines: number; times: string[]; reached: number[]; updating: number[]; complete: number[]; failed: number[] }

export interface Group { name: string; members: number; created: string }
export interface Members extends Group { machines: string[] | null; next?: string }

export interface Attention { kind: string; severity: "high" | "low"; sentence: string; link: string }
export interface Overview {
  machines: number; retired: number;
  states: { state: string; machines: number }[] | null;
  versions: { channel: string; arch: string; version: string; machines: number }[] | null;
  rollouts: Rollout[] | null; attention: Attention[] | null; failed: Machine[] | null; silent: Machine[] | null;
}
export interface VersionChart { times: string[] | null; series: { version: string; machines: number[] }[] | null }

export interface Claim { machine: string; alias: string; since: string; seen: string }
export interface RebootGroup { name: string; slots: number; lease: string; holders: Claim[] | null; queue: Claim[] | null; etag?: string }

export interface Token { id: string; role: Role; label: string; created: string; token?: string }
export interface Person { id: string; name: string; role: Role | ""; role_from: string; last_seen: string }
export interface Webhook {
  id: string | number; url: string; events: string[]; created: string; waiting: number; secret?: string;
  last?: { at: string; status: number; error: string } | null;
}
export interface AuditEntry {
  id: number; at: string; who: string; what: string; subject: string; detail: string; before?: unknown; after?: unknown;
}
export interface Audits { entries: AuditEntry[]; next?: number }
