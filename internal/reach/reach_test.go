package reach

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		addr string
		// refused says whether the address is refused: without a list, with a list that has everything, in dev.
		bare, listed, dev bool
	}{
		{"93.184.215.14", false, false, false},
		{"2606:2800:21f:cb07::1", false, false, false},
		{"10.1.2.3", true, false, true},
		{"172.31.255.255", true, false, true},
		{"172.32.0.1", false, false, false},
		{"192.168.0.1", true, false, true},
		{"100.64.0.1", true, false, true},
		{"fd12:3456::1", true, false, true},
		{"127.0.0.1", true, true, false},
		{"127.255.0.9", true, true, false},
		{"::1", true, true, false},
		{"0.0.0.0", true, true, true},
		{"0.1.2.3", true, true, true},
		{"::", true, true, true},
		{"169.254.169.254", true, true, true},
		{"169.254.1.1", true, true, true},
		{"fe80::1", true, true, true},
		{"fd00:ec2::254", true, true, true},
		{"fd20:ce::254", true, true, true},
		{"100.100.100.200", true, true, true},
		{"168.63.129.16", true, true, true},
		{"192.0.0.192", true, true, true},
		{"224.0.0.1", true, true, true},
		{"255.255.255.255", true, true, true},
		{"ff02::1", true, true, true},
		{"::ffff:93.184.215.14", true, true, true},
		{"::ffff:127.0.0.1", true, true, true},
		{"::127.0.0.1", true, true, true},
		{"64:ff9b::a9fe:a9fe", true, true, true},
		{"64:ff9b:1::1", true, true, true},
		{"2002:7f00:1::1", true, true, true},
		{"2001:0:4136:e378::1", true, true, true},
		{"fec0::1", true, true, true},
		{"2606:2800::1%eth0", true, true, true},
	} {
		addr := netip.MustParseAddr(c.addr)
		for _, r := range []struct {
			name  string
			rules *Rules
			want  bool
		}{
			{"bare", New(nil, false), c.bare},
			{"listed", New([]string{"0.0.0.0/0", "::/0", "app.internal"}, false), c.listed},
			{"dev", New(nil, true), c.dev},
		} {
			if err := r.rules.Addr("app.internal", addr, false); (err != nil) != r.want {
				t.Errorf("%s, %s: %v, refused should be %t", c.addr, r.name, err, r.want)
			}
		}
	}
}

func TestPlainHTTPIsForWhatIsListed(t *testing.T) {
	public, inside := netip.MustParseAddr("93.184.215.14"), netip.MustParseAddr("10.0.0.7")
	r := New([]string{"app.internal", "10.0.0.0/24"}, false)
	for _, c := range []struct {
		host    string
		addr    netip.Addr
		refused bool
	}{{"example.com", public, true}, {"app.internal", public, false}, {"APP.internal.", public, false}, {"example.com", inside, false}} {
		if err := r.Addr(c.host, c.addr, true); (err != nil) != c.refused {
			t.Errorf("http to %s at %s: %v", c.host, c.addr, err)
		}
	}
}

func TestURLs(t *testing.T) {
	bare, listed, dev := New(nil, false), New([]string{"app.internal", "10.0.0.0/8"}, false), New(nil, true)
	for _, c := range []struct {
		url               string
		bare, listed, dev bool
	}{
		{"https://example.com/hook?tenant=1", false, false, false},
		{"https://example.com:8443", false, false, false},
		{"http://example.com/hook", true, false, false}, // with a CIDR in the list the address decides
		{"http://app.internal/hook", true, false, false},
		{"https://app.internal/hook", false, false, false}, // what it resolves to decides
		{"https://10.1.2.3/hook", true, false, true},
		{"http://10.1.2.3/hook", true, false, true},
		{"http://127.0.0.1:9000/hook", true, true, false},
		{"https://localhost/hook", true, true, false},
		{"https://a.localhost./hook", true, true, false},
		{"https://[::1]/hook", true, true, false},
		{"https://[::ffff:10.0.0.1]/hook", true, true, true},
		{"https://169.254.169.254/latest/meta-data", true, true, true},
		{"https://2130706433/", true, true, true},
		{"https://0x7f.1/", true, true, true},
		{"https://127.1/", true, true, true},
		{"https://user:pass@example.com/", true, true, true},
		{"https://example.com/#part", true, true, true},
		{"ftp://example.com/", true, true, true},
		{"file:///etc/passwd", true, true, true},
		{"https:example.com", true, true, true},
		{"/hook", true, true, true},
		{"https://", true, true, true},
		{"https://exa mple.com/", true, true, true},
		{"https://example.com/" + strings.Repeat("x", MaxURL), true, true, true},
	} {
		for _, r := range []struct {
			name  string
			rules *Rules
			want  bool
		}{{"bare", bare, c.bare}, {"listed", listed, c.listed}, {"dev", dev, c.dev}} {
			if _, err := r.rules.URL(c.url); (err != nil) != r.want {
				t.Errorf("%.60s, %s: %v, refused should be %t", c.url, r.name, err, r.want)
			}
		}
	}
}
