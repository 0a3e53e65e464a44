// Package reach says which addresses callbacks may go to. It asks nobody: names are looked up by whoever dials, and each
// address that comes of it is put to the rules again at that moment.
package reach

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
)

// Rules are those of one process. The zero value allows public addresses by https.
type Rules struct {
	hosts    map[string]bool
	prefixes []netip.Prefix
	loopback bool
}

// New makes rules. allow lists the private hosts, addresses and CIDRs that callbacks may reach, and reach without TLS;
// loopback is for a gateway somebody develops against: then 127.0.0.0/8 and ::1 are allowed too.
func New(allow []string, loopback bool) *Rules {
	r := &Rules{hosts: map[string]bool{}, loopback: loopback}
	for _, item := range allow {
		if p, err := netip.ParsePrefix(item); err == nil {
			r.prefixes = append(r.prefixes, p.Masked())
		} else if a, err := netip.ParseAddr(item); err == nil {
			r.prefixes = append(r.prefixes, netip.PrefixFrom(a, a.BitLen()))
		} else {
			r.hosts[host(item)] = true
		}
	}
	return r
}

// Why an address is refused.
var (
	errURL      = errors.New("must be an https URL with a host, without user and fragment")
	errHTTP     = errors.New("must be https: http is for hosts in WAGATE_CALLBACK_ALLOW")
	errNever    = errors.New("names an address that callbacks never reach (loopback, link-local, multicast, metadata or reserved)")
	errPrivate  = errors.New("names a private address that is not in WAGATE_CALLBACK_ALLOW")
	errNumber   = errors.New("names its host by a number that is no address")
	errLoopback = errors.New("names this machine")
)

// MaxURL is the length of a URL, in bytes.
const MaxURL = 2048

// URL reads where callbacks are to go, and refuses what could never be reached: another scheme than http and https, a user,
// and hosts and addresses that the rules exclude whatever a name resolves to. Its errors are fit for callers.
func (r *Rules) URL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || len(s) > MaxURL || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return nil, errURL
	}
	name := host(u.Hostname())
	addr, err := netip.ParseAddr(name)
	switch {
	case err == nil:
		return u, r.Addr(name, addr, u.Scheme == "http")
	case numeric(name):
		return nil, errNumber // 0x7f.1, 2130706433: some resolvers take them for addresses
	case (name == "localhost" || strings.HasSuffix(name, ".localhost")) && !r.loopback:
		return nil, errLoopback
	case u.Scheme == "http" && !r.hosts[name] && len(r.prefixes) == 0 && !r.loopback:
		return nil, errHTTP
	}
	return u, nil
}

// Addr says whether an address that a host has resolved to, or is, may be dialled; plain says that it is without TLS.
func (r *Rules) Addr(name string, addr netip.Addr, plain bool) error {
	if addr.Is4In6() || addr.Zone() != "" {
		return errNever
	}
	if addr.IsLoopback() && r.loopback {
		return nil
	}
	if in(addr, never) {
		return errNever
	}
	listed := r.hosts[host(name)] || in(addr, r.prefixes)
	switch private := in(addr, private); {
	case private && !listed:
		return errPrivate
	case !private && !in(addr, public):
		return errNever
	case plain && !listed:
		return errHTTP
	}
	return nil
}

func host(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// numeric says that a host's last label begins with a digit: no top-level domain does (RFC 3696).
func numeric(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return last != "" && last[0] >= '0' && last[0] <= '9'
}

func in(addr netip.Addr, of []netip.Prefix) bool {
	for _, p := range of {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func prefixes(list ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(list))
	for i, s := range list {
		all[i] = netip.MustParsePrefix(s)
	}
	return all
}

// Source of the ranges: IANA's registries of special-purpose addresses, and the clouds' pages on their metadata services.
var (
	// never is refused whatever is allowed.
	never = prefixes(
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::254/128", // metadata: Alibaba, Azure, AWS, Google
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", // protocols (Teredo), documentation, 6to4
	)
	// private may be allowed.
	private = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
	// public is the rest; of IPv6 only what is given out: NAT64, mapped and translated addresses lie outside.
	public = prefixes("0.0.0.0/0", "2000::/3")
)
