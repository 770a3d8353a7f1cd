package omaha

import (
	"fmt"
	"strconv"
)

// EventType says which step of an update an event is about.
type EventType int

// The types that update_engine and Semper send. The specification's others are known by name only.
const (
	EventUnknown          EventType = 0
	EventUpdateComplete   EventType = 3 // the whole update: applied, completed or failed, by its result
	EventDownloadStarted  EventType = 13
	EventDownloadFinished EventType = 14
)

var eventTypes = map[EventType]string{
	0: "unknown", 1: "download complete", 2: "install complete", 3: "update complete", 4: "uninstall", 5: "download started",
	6: "install started", 9: "new application install started", 10: "setup started", 11: "setup finished",
	12: "update application started", 13: "update download started", 14: "update download finished",
	15: "update installer started", 16: "setup update begun", 17: "setup update complete", 20: "product registered",
	30: "first check of a factory installation", 40: "application command started", 41: "application command ended",
	100: "setup failure", 102: "COM server failure", 103: "setup update failure",
}

// String returns the type's name, or "event type N".
func (t EventType) String() string {
	if s, ok := eventTypes[t]; ok {
		return s
	}
	return "event type " + strconv.Itoa(int(t))
}

// EventResult says how the step went.
type EventResult int

// The results that update_engine and Semper send.
const (
	ResultError         EventResult = 0
	ResultSuccess       EventResult = 1
	ResultSuccessReboot EventResult = 2 // done, the reboot included
	ResultDeferred      EventResult = 9
)

var eventResults = [...]string{
	"error", "success", "success after a reboot", "success after a restart", "cancelled", "installer error", "other installer error",
	"no update", "installer needs a system reboot", "deferred", "hand-over error",
}

// String returns the result's name, or "result N".
func (r EventResult) String() string {
	if r >= 0 && int(r) < len(eventResults) {
		return eventResults[r]
	}
	return "result " + strconv.Itoa(int(r))
}

// Sentence says for people what e means.
func (e *Event) Sentence() string {
	next := "the update"
	if e.NextVersion != "" {
		next = e.NextVersion
	}
	switch {
	case e.Type == EventDownloadStarted && e.Result == ResultSuccess:
		return "started to download " + next
	case e.Type == EventDownloadFinished && e.Result == ResultSuccess:
		return "finished the download of " + next
	case e.Type == EventUpdateComplete && e.Result == ResultSuccess:
		return "installed " + next + "; the reboot is still to come"
	case e.Type == EventUpdateComplete && e.Result == ResultDeferred:
		return "puts the reboot into " + next + " off: " + e.Reason
	case e.Completion():
		return "completed the update from " + e.PreviousVersion
	case e.Idle():
		return "checked in"
	case e.Type == EventUpdateComplete && e.Result == ResultError:
		s := next + " failed: "
		if e.Reason != "" {
			return s + e.Reason + " (code " + e.ErrorCode.String() + ")"
		}
		return s + e.ErrorCode.Sentence() + " (code " + e.ErrorCode.String() + ")"
	}
	return fmt.Sprintf("%v: %v", e.Type, e.Result)
}

// ErrorCode is the errorcode of a failed event: a base code, and flags in bits 28 to 31. Bit 31 makes update_engine print a negative
// number, so it travels as a signed 64-bit one.
type ErrorCode int64

// Flags of an error code. Every client of a server that is not Flatcar's own sets FlagOtherServer.
const (
	FlagOtherServer ErrorCode = 1 << 28
	FlagTestImage   ErrorCode = 1 << 29
	FlagResumed     ErrorCode = 1 << 30
	FlagDevMode     ErrorCode = 1 << 31

	allFlags = FlagOtherServer | FlagTestImage | FlagResumed | FlagDevMode

	// CodeHTTPBase plus an HTTP status is the code of an update check that got that status.
	CodeHTTPBase ErrorCode = 2000
)

// The base codes, numbered as in update_engine's action_processor.h. For Semper's agent the remarks say when it is the one to send.
const (
	CodeSuccess                  ErrorCode = 0
	CodeError                    ErrorCode = 1 // none of the others fits
	CodeRequest                  ErrorCode = 2
	CodeResponseHandler          ErrorCode = 3
	CodeCopy                     ErrorCode = 4
	CodePostinstall              ErrorCode = 5
	CodeSetBootable              ErrorCode = 6 // the boot entry could not be written
	CodeOpenTarget               ErrorCode = 7 // the idle slot could not be opened
	CodeOpenKernel               ErrorCode = 8
	CodeTransfer                 ErrorCode = 9  // the download broke off and the tries are used up
	CodePayloadHash              ErrorCode = 10 // the whole payload's SHA-256
	CodePayloadSize              ErrorCode = 11 // shorter or longer than announced
	CodePayloadVerification      ErrorCode = 12
	CodePartitionInfo            ErrorCode = 13
	CodeWrite                    ErrorCode = 14 // the idle slot could not be written
	CodeRootVerification         ErrorCode = 15 // the finished root or its verity root hash
	CodeKernelVerification       ErrorCode = 16 // the finished UKI
	CodeUnsigned                 ErrorCode = 17 // the payload has no signature
	CodePayloadSignature         ErrorCode = 18 // signed by a key that is not trusted
	CodeBootedFromFirmwareB      ErrorCode = 19
	CodeDownloadState            ErrorCode = 20 // what was kept of an interrupted download is unusable
	CodeMagic                    ErrorCode = 21
	CodeManifestSignatureMissing ErrorCode = 22
	CodeManifestParse            ErrorCode = 23
	CodeMetadataSignature        ErrorCode = 24
	CodeMetadataVerification     ErrorCode = 25
	CodeMetadataMismatch         ErrorCode = 26 // the metadata signature, checked before the manifest is parsed
	CodeOperationVerification    ErrorCode = 27
	CodeOperationExecution       ErrorCode = 28
	CodeOperationHash            ErrorCode = 29 // one operation's data
	CodeEmptyResponse            ErrorCode = 30
	CodeResponseXML              ErrorCode = 31
	CodeMetadataSize             ErrorCode = 32
	CodeMetadataSignatureInvalid ErrorCode = 33
	CodeResponseInvalid          ErrorCode = 34
	CodeIgnoredByPolicy          ErrorCode = 35 // the machine's own rules refuse the version, for instance an older one
	CodeDeferredByPolicy         ErrorCode = 36
	CodeHTTPResponse             ErrorCode = 37
	CodeOperationHashMissing     ErrorCode = 38
	CodeMetadataSignatureMissing ErrorCode = 39
	CodeDeferredByBackoff        ErrorCode = 40
	CodePowerwash                ErrorCode = 41
	CodePCRPolicyVerification    ErrorCode = 42
	CodePCRPolicyHTTP            ErrorCode = 43
	CodeRollback                 ErrorCode = 44 // booted, found wanting, and back in the old version
)

// passing marks the failures of the moment and of the machine (its line, its disk, its software): the same version may well succeed at the next try. What
// is left speaks against the version: payload and signatures, what was written and does not verify, the machine's rules, and a boot that failed.
const passing = true

var errorCodes = [...]struct {
	name, sentence string
	passing        bool
}{
	CodeSuccess:                  {"success", "no error was given", false},
	CodeError:                    {"error", "the update failed without a more exact cause", passing},
	CodeRequest:                  {"request", "the update server could not be asked", passing},
	CodeResponseHandler:          {"response-handler", "the server's answer could not be used", false},
	CodeCopy:                     {"copy", "the running system could not be copied into the idle slot", passing},
	CodePostinstall:              {"postinstall", "the step after the installation failed", false},
	CodeSetBootable:              {"set-bootable", "the new version could not be made bootable", passing},
	CodeOpenTarget:               {"open-target", "the idle slot could not be opened", passing},
	CodeOpenKernel:               {"open-kernel", "the kernel's place could not be opened", passing},
	CodeTransfer:                 {"transfer", "the download broke off", passing},
	CodePayloadHash:              {"payload-hash", "the payload's hash is not the one announced", false},
	CodePayloadSize:              {"payload-size", "the payload's size is not the one announced", false},
	CodePayloadVerification:      {"payload-verification", "the payload could not be verified", false},
	CodePartitionInfo:            {"partition-info", "the new partition's size or hash could not be determined", false},
	CodeWrite:                    {"write", "the idle slot could not be written", passing},
	CodeRootVerification:         {"root-verification", "the root file system, as written, is not the one released", false},
	CodeKernelVerification:       {"kernel-verification", "the kernel, as written, is not the one released", false},
	CodeUnsigned:                 {"unsigned", "the payload is not signed", false},
	CodePayloadSignature:         {"payload-signature", "the payload is not signed by a trusted key", false},
	CodeBootedFromFirmwareB:      {"firmware-b", "the machine was started from its second firmware", false},
	CodeDownloadState:            {"download-state", "the state of an interrupted download is unusable", passing},
	CodeMagic:                    {"magic", "what was downloaded is not an update payload", false},
	CodeManifestSignatureMissing: {"manifest-signature-missing", "the payload's manifest names no signature", false},
	CodeManifestParse:            {"manifest-parse", "the payload's manifest cannot be read", false},
	CodeMetadataSignature:        {"metadata-signature", "the metadata signature cannot be read", false},
	CodeMetadataVerification:     {"metadata-verification", "the metadata signature could not be checked", false},
	CodeMetadataMismatch:         {"metadata-mismatch", "the metadata signature is not by a trusted key", false},
	CodeOperationVerification:    {"operation-verification", "an operation's data could not be verified", false},
	CodeOperationExecution:       {"operation-execution", "an operation of the payload could not be carried out", false},
	CodeOperationHash:            {"operation-hash", "an operation's data has another hash than the manifest says", false},
	CodeEmptyResponse:            {"empty-response", "the update server's answer was empty", passing},
	CodeResponseXML:              {"response-xml", "the update server's answer is not XML", passing},
	CodeMetadataSize:             {"metadata-size", "the payload's metadata has a wrong size", false},
	CodeMetadataSignatureInvalid: {"metadata-signature-invalid", "the metadata signature is malformed", false},
	CodeResponseInvalid:          {"response-invalid", "the update server's answer makes no sense", passing},
	CodeIgnoredByPolicy:          {"ignored-by-policy", "the machine's own policy refuses the update", false},
	CodeDeferredByPolicy:         {"deferred-by-policy", "the machine's own policy puts the update off", passing},
	CodeHTTPResponse:             {"http-response", "the update server answered with an HTTP error", passing},
	CodeOperationHashMissing:     {"operation-hash-missing", "an operation of the payload has no hash", false},
	CodeMetadataSignatureMissing: {"metadata-signature-missing", "the payload has no metadata signature", false},
	CodeDeferredByBackoff:        {"deferred-by-backoff", "the machine waits after earlier failures", passing},
	CodePowerwash:                {"powerwash", "the machine's data could not be marked for erasure", false},
	CodePCRPolicyVerification:    {"pcr-policy-verification", "the new TPM policy could not be verified", false},
	CodePCRPolicyHTTP:            {"pcr-policy-http", "the TPM policy server answered with an HTTP error", passing},
	CodeRollback:                 {"rollback", "the new version was booted, and the machine went back to the old one", false},
}

// Base returns c without its flags.
func (c ErrorCode) Base() ErrorCode {
	if c < -1<<31 || c >= 1<<32 {
		return c // not a number that update_engine can send
	}
	return c & (1<<32 - 1) &^ allFlags
}

// ByRules reports whether c is a refusal by the rules of the version that ran, such as that the one offered is older. It ends when another version runs.
func (c ErrorCode) ByRules() bool { return c.Base() == CodeIgnoredByPolicy }

// Passing reports whether c is a failure of the moment, such as a broken connection or a full disk, that says nothing against the version attempted: the
// agent tries it again, and the server goes on offering it.
func (c ErrorCode) Passing() bool {
	b := c.Base()
	if b >= 0 && int64(b) < int64(len(errorCodes)) {
		return errorCodes[b].passing
	}
	return isHTTP(b)
}

// Name returns the base code's name, "payload-hash", "http-503" or "code-N".
func (c ErrorCode) Name() string {
	b := c.Base()
	switch {
	case b >= 0 && int64(b) < int64(len(errorCodes)):
		return errorCodes[b].name
	case isHTTP(b):
		return "http-" + strconv.FormatInt(int64(b-CodeHTTPBase), 10)
	}
	return "code-" + strconv.FormatInt(int64(b), 10)
}

// Sentence says for people what went wrong.
func (c ErrorCode) Sentence() string {
	b := c.Base()
	switch {
	case b >= 0 && int64(b) < int64(len(errorCodes)):
		return errorCodes[b].sentence
	case isHTTP(b):
		return fmt.Sprintf("the update server answered with HTTP status %d", b-CodeHTTPBase)
	}
	return fmt.Sprintf("a failure that is not in the list of codes (%d)", b)
}

// String returns the base code and its name, "10 payload-hash".
func (c ErrorCode) String() string {
	return strconv.FormatInt(int64(c.Base()), 10) + " " + c.Name()
}

func isHTTP(b ErrorCode) bool { return b >= CodeHTTPBase+100 && b < CodeHTTPBase+1000 }
