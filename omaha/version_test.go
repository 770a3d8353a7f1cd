package omaha

import (
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

func TestCheckVersion(t *testing.T) {
	for _, s := range []string{"0", "1.2.0", "1.2.0~rc1", "1.2.0-rc.1", "4081.2.0", "9999.9.9+nightly-20240101", "1^2", strings.Repeat("1", 64)} {
		if err := CheckVersion(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "v1.0.0", "ForcedUpdate", ".1", "-1", "1 ", "1.0.0\n", "1.0.0+a b", "1.0.0-\u00fc", "\uff11.0", "1/2", strings.Repeat("1", 65)} {
		if err := CheckVersion(s); !fault.Is(err, fault.Input) {
			t.Errorf("%q: error %v, want one of kind input", s, err)
		}
	}
}
