package payload

import (
	"errors"
	"fmt"

	"github.com/semper-os/semper/fault"
)

// Reason says why a payload was not accepted or not applied. Its text is stable: it is stored, sent and shown.
type Reason string

// The reasons. See Reason.Code for the number that each is reported as.
const (
	Transfer         Reason = "transfer"          // the stream broke off or failed; going on from Applier.Offset may help
	Cancelled        Reason = "cancelled"         // the context was cancelled
	HashMismatch     Reason = "payload-hash"      // the file is not the one that was announced
	SizeMismatch     Reason = "payload-size"      // the file is shorter or longer than it says, or than was announced
	BadMagic         Reason = "bad-magic"         // not a payload
	BadVersion       Reason = "bad-major-version" // a payload of another major version
	MetadataSize     Reason = "metadata-size"     // manifest or metadata signature empty or too large
	Unsigned         Reason = "unsigned"          // there is no signature at all
	NoTrust          Reason = "no-trust"          // there is no key to check with, or a threshold that cannot be met
	BadSignature     Reason = "bad-signature"     // not signed by enough trusted keys
	BadManifest      Reason = "bad-manifest"      // the manifest does not parse or contradicts itself
	UnknownOperation Reason = "unknown-operation" // an operation that this reader cannot do
	NoOperationHash  Reason = "no-operation-hash" // a blob without SHA-256
	WrongPartition   Reason = "wrong-partition"   // a partition that nobody here has, or one that is missing
	TooLarge         Reason = "too-large"         // a partition that does not fit its slot
	WrongImage       Reason = "wrong-image"       // another product or architecture
	OldVersion       Reason = "old-version"       // not newer than what runs here, or an older epoch
	TooFar           Reason = "too-far"           // what runs here is older than the oldest version that may go there directly
	OperationHash    Reason = "operation-hash"    // a blob's SHA-256 is not the manifest's
	OperationFailed  Reason = "operation-failed"  // a blob does not decode to what the manifest says
	WriteFailed      Reason = "write-failed"      // the target could not be written, flushed or read back
	PartitionHash    Reason = "partition-hash"    // what was written is not what the manifest says
	BadCheckpoint    Reason = "bad-checkpoint"    // a saved state that is damaged or belongs to another payload
)

// reasons holds the number of each reason in Flatcar's update_engine (its ActionExitCode, which Omaha servers know) and its kind.
var reasons = map[Reason]struct {
	code int
	kind fault.Kind
}{
	Transfer:         {9, fault.Network},
	Cancelled:        {9, fault.Network},
	HashMismatch:     {10, fault.Verification},
	SizeMismatch:     {11, fault.Verification},
	BadMagic:         {21, fault.Input},
	BadVersion:       {23, fault.Input},
	MetadataSize:     {32, fault.Input},
	Unsigned:         {17, fault.Verification},
	NoTrust:          {18, fault.Verification},
	BadSignature:     {18, fault.Verification},
	BadManifest:      {23, fault.Input},
	UnknownOperation: {28, fault.Input},
	NoOperationHash:  {38, fault.Input},
	WrongPartition:   {13, fault.Verification},
	TooLarge:         {13, fault.Verification},
	WrongImage:       {35, fault.Verification},
	OldVersion:       {35, fault.Verification},
	TooFar:           {35, fault.Verification},
	OperationHash:    {29, fault.Verification},
	OperationFailed:  {28, fault.Input},
	WriteFailed:      {14, fault.IO},
	PartitionHash:    {15, fault.Verification},
	BadCheckpoint:    {20, fault.Input},
}

// Code returns the error code that an Omaha event carries for r: update_engine's number for the same failure, or 1 (plain error) for a
// reason that is not one of this package's.
func (r Reason) Code() int {
	if e, ok := reasons[r]; ok {
		return e.code
	}
	return 1
}

// Resumable reports whether the same payload may still be good: the failure was in the way here, not in the payload or the target. After
// any other reason a checkpoint of it is worthless.
func (r Reason) Resumable() bool { return r == Transfer || r == Cancelled }

// Error is a failure with its reason.
type Error struct {
	Reason Reason
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of err, or "" where this package gave none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func refuse(r Reason, format string, args ...any) error {
	return fault.Wrap(reasons[r].kind, &Error{r, fmt.Errorf(format, args...)})
}
