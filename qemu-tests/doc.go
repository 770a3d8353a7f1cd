// Package qemutests holds the tests that boot real images in QEMU and break them on purpose.
//
//	ready    1.0.0 after its first boot, on a disk that is larger than the released one
//	updated  ready, plus a change in /etc and a container, after the update to 1.1.0 in slot B
//
// What they start with is the whole image; the releases of updates that need no containers are lean, see make-releases.
//
// Both machines are booted once and kept as snapshots; each test goes on from a copy of one, so a test costs a restore of two seconds instead of a
// boot. Each test has an update server of its own, whose machines and releases nobody else sees. Two machines run side by side.
//
// The releases have to be there before: "make test" makes them, or
//
//	make programs && qemu-tests/make-releases bin images out/test
//
// Environment:
//
//	SEMPER_TEST_RELEASES   folder with the releases and keys/ (default ../out/test)
//	SEMPER_TEST_BIN        folder with Semper's programs (default ../bin)
//
// Disks, consoles and servers' logs are in SEMPER_TEST_RELEASES/qemu; after a failure they are kept, and the messages name the console's last lines.
//
// Without KVM the tests need about half an hour on two cores: give "go test" a -timeout of 40m.
package qemutests
