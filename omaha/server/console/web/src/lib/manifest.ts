// A release's manifest and its signatures, as far as the console shows them. Whoever signed is believed by machines, not here.

export interface ManifestFile { name: string; size: number; sha256: string }
export interface Manifest { name?: string; epoch?: number; root_hash?: string; packages_sha256?: string; source_date_epoch?: number; min_version?: string; files: ManifestFile[] }
export interface Signature { key_id: string; algorithm: string }

function json(base64: string | null | undefined): unknown {
  if (!base64) return undefined;
  try {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

export function manifestOf(base64: string | null | undefined): Manifest | undefined {
  const m = json(base64);
  if (typeof m !== "object" || m === null) return undefined;
  const files = (m as { files?: unknown }).files;
  return { ...(m as Manifest), files: Array.isArray(files) ? (files as ManifestFile[]).filter((f) => typeof f?.name === "string" && typeof f.size === "number") : [] };
}

export function signaturesOf(base64: string | null | undefined): Signature[] {
  const s = json(base64);
  return Array.isArray(s) ? (s as Signature[]).filter((x) => typeof x?.key_id === "string") : [];
}
