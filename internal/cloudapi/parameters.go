package cloudapi

import (
	"slices"
	"strings"
)

// RequestParameters are names that the Graph API reads, in any query or body, as being of the request itself: another method
// or form of answer, other calls beside it. KeyParameters are those of a token and of what is made from one.
var (
	RequestParameters = []string{"method", "batch", "ids", "callback", "suppress_http_code"}
	KeyParameters     = []string{"access_token", "appsecret_proof", "appsecret_time"}
)

// IsGraphParameter says whether the Graph API would read a name, in whatever spelling, as one of RequestParameters or
// KeyParameters. It allocates nothing for names in ASCII.
func IsGraphParameter(name []byte) bool {
	for _, c := range name {
		if c >= 0x80 {
			folded := FoldParameter(string(name))
			return slices.Contains(RequestParameters, folded) || slices.Contains(KeyParameters, folded)
		}
	}
	folds := func(to string) bool { return foldsTo(name, to) }
	return slices.ContainsFunc(RequestParameters, folds) || slices.ContainsFunc(KeyParameters, folds)
}

// foldsTo is FoldParameter(name) == to for a name in ASCII.
func foldsTo(name []byte, to string) bool {
	for len(name) > 0 && name[0] == ' ' {
		name = name[1:]
	}
	for i, c := range name {
		switch {
		case c == '[' || c == 0:
			return i == len(to)
		case c == '.' || c == ' ':
			c = '_'
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		}
		if i == len(to) || c != to[i] {
			return false
		}
	}
	return len(name) == len(to)
}

// FoldParameter gives the name that the Graph API, which is of PHP's family, reads out of the name of a parameter.
func FoldParameter(name string) string {
	name, _, _ = strings.Cut(strings.TrimLeft(name, " "), "[")
	name, _, _ = strings.Cut(name, "\x00")
	return strings.ToLower(parameterMarks.Replace(name))
}

var parameterMarks = strings.NewReplacer(".", "_", " ", "_")
