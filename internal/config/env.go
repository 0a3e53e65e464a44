package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxFile bounds what is read from a NAME_FILE.
const maxFile = 64 << 10

var (
	graphVersion = regexp.MustCompile(`^v[0-9]{1,2}\.[0-9]$`)
	number       = regexp.MustCompile(`^\+?[0-9]{1,15}$`)
	hostName     = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$`)
	printable    = regexp.MustCompile(`^[!-~]{16,200}$`)
)

// presetMetricsAllow is loopback and the private networks (RFC 1918, RFC 4193).
const presetMetricsAllow = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"

// env reads settings and gathers what is wrong with them, so that one start shows every fault.
type env struct {
	lookup func(string) (string, bool)
	faults []string
	named  map[string]bool
}

func (e *env) fault(name, format string, args ...any) {
	if e.named == nil {
		e.named = map[string]bool{}
	}
	if e.named[name] {
		return // one complaint a setting
	}
	e.named[name] = true
	e.faults = append(e.faults, name+" "+fmt.Sprintf(format, args...))
}

func (e *env) err() error {
	if len(e.faults) == 0 {
		return nil
	}
	return errors.New("settings: " + strings.Join(e.faults, "; "))
}

func (e *env) require(command Command, name string, isSet bool) {
	if !isSet {
		e.fault(name, "is required by %s (or %s_FILE)", command, name)
	}
}

func (e *env) given(name string) bool {
	v, _ := e.lookup(name)
	f, _ := e.lookup(name + "_FILE")
	return v != "" || f != ""
}

// raw gives the value of a setting or of its file; empty when neither is given.
func (e *env) raw(name string) string {
	value, _ := e.lookup(name)
	path, _ := e.lookup(name + "_FILE")
	switch {
	case path == "":
		return strings.TrimSpace(value)
	case value != "":
		e.fault(name, "and %s_FILE are both given", name)
		return ""
	}
	content, err := readFile(path)
	if err != nil {
		// The path is no secret; what the file holds is.
		e.fault(name+"_FILE", "cannot be read: %v", err)
		return ""
	}
	if content == "" {
		e.fault(name+"_FILE", "names an empty file")
	}
	return content
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxFile {
		return "", fmt.Errorf("%s is over %d bytes", path, maxFile)
	}
	return strings.TrimSpace(string(content)), nil
}

func (e *env) text(name, preset string) string {
	if v := e.raw(name); v != "" {
		return v
	}
	return preset
}

func (e *env) match(name, preset string, pattern *regexp.Regexp, rule string) string {
	v := e.text(name, preset)
	if !pattern.MatchString(v) {
		e.fault(name, "%s", rule)
	}
	return v
}

func (e *env) integer(name string, preset, low, high int) int {
	v := e.raw(name)
	if v == "" {
		return preset
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		e.fault(name, "must be a whole number from %d to %d", low, high)
	}
	return n
}

func (e *env) duration(name string, preset, low, high time.Duration) time.Duration {
	v := e.raw(name)
	if v == "" {
		return preset
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < low || d > high {
		e.fault(name, "must be a duration from %s to %s, such as %s", low, high, preset)
	}
	return d
}

// keep takes a time for which something is kept, or 0 for good, which is the preset.
func (e *env) keep(name string, low, high time.Duration) time.Duration {
	v := e.raw(name)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || (d != 0 && d < low) || d > high {
		e.fault(name, "must be 0 or a duration from %s to %s, such as 2160h", low, high)
	}
	return d
}

// blobStore takes the URL of a folder, by its whole path, or of a bucket.
func (e *env) blobStore(name string) string {
	v := e.raw(name)
	if v == "" {
		return ""
	}
	u, err := url.Parse(v)
	switch {
	case err != nil || (u.Scheme != "file" && u.Scheme != "s3") || u.User != nil || u.Fragment != "":
	case u.Scheme == "file" && u.Host == "" && u.RawQuery == "" && len(u.Path) > 1 && path.IsAbs(u.Path):
		return v
	case u.Scheme == "s3" && u.Host != "" && strings.Trim(u.Path, "/") == "":
		return v
	}
	e.fault(name, "must be file:///a/folder or s3://bucket?region=…; keys of a bucket go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	return ""
}

// contentKeep takes final, or a number of hours or days: 12h, 30d.
func (e *env) contentKeep(name string) Keep {
	v := e.raw(name)
	switch {
	case v == "":
		return Keep{}
	case v == "final":
		return Keep{AtFinal: true}
	}
	unit := map[string]time.Duration{"h": time.Hour, "d": 24 * time.Hour}[v[len(v)-1:]]
	n, err := strconv.Atoi(v[:len(v)-1])
	if err != nil || unit == 0 || n < 1 || n > 3650 {
		e.fault(name, "must be final, or a whole number of hours or days from 1 to 3650, such as 12h or 30d")
	}
	return Keep{For: time.Duration(n) * unit}
}

func (e *env) address(name, preset string) string {
	v := e.text(name, preset)
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		e.fault(name, "must be host:port, such as %s", preset)
	}
	return v
}

// url takes an absolute http(s) URL and gives it without a slash at its end.
func (e *env) url(name, preset string) string {
	v := e.text(name, preset)
	if v == "" {
		return ""
	}
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		e.fault(name, "must be an http or https URL without a query")
	}
	return strings.TrimRight(v, "/")
}

func (e *env) secret(name string) Secret { return NewSecret(e.raw(name)) }

func (e *env) databaseURL(name string) Secret {
	v := e.raw(name)
	if v == "" {
		return Secret{}
	}
	if scheme, _, ok := strings.Cut(v, "://"); ok {
		// The error of url.Parse would show the URL, password and all.
		if _, err := url.Parse(v); err != nil || (scheme != "postgres" && scheme != "postgresql") {
			e.fault(name, "must be a postgres:// URL")
		}
	} else if !strings.Contains(v, "=") {
		e.fault(name, "must be a postgres:// URL or keyword=value pairs")
	}
	return NewSecret(v)
}

func (e *env) secretKey(name string) Secret {
	v := e.raw(name)
	if v == "" {
		return Secret{}
	}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if key, err := encoding.Strict().DecodeString(v); err == nil && len(key) == 32 {
			return NewSecret(string(key))
		}
	}
	e.fault(name, "must be 32 bytes in base64 (openssl rand -base64 32)")
	return Secret{}
}

func (e *env) adminKey(name string) Secret {
	v := e.raw(name)
	if v != "" && !printable.MatchString(v) {
		e.fault(name, "must be 16 to 200 printable ASCII characters without spaces")
		return Secret{}
	}
	return NewSecret(v)
}

// list splits at commas and white space.
func (e *env) list(name, preset string) []string {
	return strings.FieldsFunc(e.text(name, preset), func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

func (e *env) numbers(name string) []string {
	items := e.list(name, "")
	for i, item := range items {
		if !number.MatchString(item) {
			e.fault(name, "must list numbers or their first digits, separated by commas")
		}
		items[i] = strings.TrimPrefix(item, "+")
	}
	return items
}

func (e *env) hosts(name string) []string {
	items := e.list(name, "")
	for _, item := range items {
		if _, err := prefix(item); err != nil && !hostName.MatchString(item) {
			e.fault(name, "must list hosts, addresses or CIDRs, separated by commas")
		}
	}
	return items
}

func (e *env) prefixes(name, preset string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, item := range e.list(name, preset) {
		p, err := prefix(item)
		if err != nil {
			e.fault(name, "must list addresses or CIDRs, separated by commas")
			return nil
		}
		prefixes = append(prefixes, p)
	}
	return prefixes
}

func prefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

func (e *env) level(name string, preset slog.Level) slog.Level {
	switch v := strings.ToLower(e.raw(name)); v {
	case "":
		return preset
	case "debug":
		return slog.LevelDebug
	case "info":
		return slog.LevelInfo
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	default:
		e.fault(name, "must be debug, info, warn or error")
		return preset
	}
}
