package reach

import (
	"net/netip"
	"testing"
)

// FuzzURL holds what a caller's address is taken for against what is dialled for it.
func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"https://example.com/hook", "http://10.0.0.1", "https://[::ffff:7f00:1]/", "https://0x7f000001/", "https://127.0.0.1%2f.example.com/", "https://a@127.0.0.1/", "https://LOCALHOST./",
		"https://[fe80::1%25eth0]/", "https://①②⑦.0.0.1/", "https://example.com:99999/", "https://0/", "https://169.254.169.254.", "//127.0.0.1",
	} {
		f.Add(s)
	}
	rules := New([]string{"10.0.0.0/8", "app.internal"}, false)
	f.Fuzz(func(t *testing.T, s string) {
		u, err := rules.URL(s)
		if err != nil {
			return
		}
		if (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.Hostname() == "" || len(s) > MaxURL {
			t.Fatalf("%q was taken", s)
		}
		if addr, err := netip.ParseAddr(u.Hostname()); err == nil && (addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() || addr.Is4In6()) {
			t.Fatalf("%q was taken, and is %v", s, addr)
		}
	})
}
