// Package initramfs is what semper-init does between the kernel and systemd: find the one pair of partitions that the kernel's command line names by its
// root hash, verify it, mount it, prepare /var and /etc, and hand over.
//
//	mount /dev /proc /sys /run
//	roothash= of the command line ─► two PARTUUIDs (package layout)
//	modalias of every device ─► modules (package modules), until a disk carries both PARTUUIDs
//	root hash signature ◄─ /verity.crt         wrong: stop
//	superblock, top of the hash tree           wrong: stop, with a message that names the partition
//	/dev/mapper/root = dm-verity (package devmapper), restart_on_corruption
//	/sysroot         = erofs, read-only
//	/sysroot/var     = ext4 in the disk's last partition; made at first boot, checked at every boot, grown with the disk
//	/sysroot/etc     = overlay: lower the image's, upper in /var/lib/semper/etc
//	/EFI/Linux of the ESP: a second name of one file is taken away
//	/run/semper/boot.json, /run/systemd/system/efi.{mount,automount}
//	switch root, exec systemd
//
// Programs that are needed on the way (mke2fs, e2fsck, resize2fs) run by chroot out of the verified root; the initramfs itself holds one program.
//
// There is no way out but forward or round: every failure, a panic and a hang too, ends in one framed message on all consoles and a restart, which the
// boot loader counts. There is no shell, and process 1 never exits.
//
// # Two disks with the same partitions
//
// Released images are the same bits everywhere, so a second disk with the same version (a clone, an installation stick, a disk behind two paths) has the same
// PARTUUIDs. Their roots are equal by verification; what differs is /var. Refusing to start would let a forgotten stick stop a server, so one is chosen,
// the same one at every boot: disks that are fixed before those that are removable or behind USB, then the lowest device path in sysfs in natural order
// (the bus address, which unlike the name sda does not depend on who answered first; only multi-path NVMe devices have a path without it). The choice is made when every driver that devices asked
// for is loaded and every disk that is there has answered, but at most half a second after the first of them was found; it is printed, and boot.json lists the
// others. A disk that appears later (SCSI and USB controllers look for theirs at leisure) does not take part.
package initramfs
