// Package freshness makes and checks freshness statements: small signed documents that say which version is the newest in a channel, when that was said, and
// until when it counts. A server or mirror that keeps updates back can only repeat the last statement until it expires; then every machine notices.
//
//	key holder ── signs every few days ──▶ server ── with every answer ──▶ machine: good? in time? not older than the last one?
//
// The idea is the timestamp role of The Update Framework (TUF). What TUF has and this has not: a key of its own for the role (here the
// payload keys sign), and hashes of the files (here a version; the payload's own signature says what that version is).
//
// # Document
//
// One line of JSON with these fields in this order and no white space; no other bytes are accepted for the same meaning:
//
//	{"type":"freshness","format":1,"product":"semper","channel":"stable","architecture":"amd64","version":"1.2.0",
//	 "issued":"2026-01-02T03:04:05Z","expires":"2026-01-16T03:04:05Z","sequence":1767323045}
//
// Type comes first and is in no other document that the payload keys sign, so that none passes for another. Sequence never goes down within a channel, and is at most the
// second at which the statement was issued, which is what semper uses: so nobody can use the numbers up. The version may go down: a release that was withdrawn is not the
// newest any more.
//
// # Envelope
//
// What travels and is stored, in printable ASCII and at most MaxSize bytes; canonical like the document:
//
//	{"document":"<base64 of the document>","signatures":[…]}
//
// The signatures are those of package payload/detached. The document is not parsed before enough of them are good.
//
// # Limits
//
// Whoever holds the keys can lie. A machine that is off, or reaches nobody, learns nothing. A machine whose clock is behind takes a statement for fresh by as much longer as
// the clock is behind, but never one that had expired when its image was made, or when the last one it has seen was issued. A machine whose clock is ahead takes good ones for
// expired. How far the clock is off cannot be known here. A machine remembers the last statement of one channel: after it went from one channel to another and back, an old one
// that has not expired can be shown again.
package freshness
