package cloudapi

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// The functions of this file walk JSON by hand, so that the hot path reads a
// body once and copies nothing. They expect text that json.Valid has passed.

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// skipSpace gives the first place at or after i that is no white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	return i
}

// skipString gives the place after the string that begins at i.
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipValue gives the place after the value that begins at i.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return len(b)
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				i = skipString(b, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			i++
			if depth == 0 {
				return i
			}
		}
		return len(b)
	}
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && !isSpace(b[i]) {
		i++
	}
	return i
}

// isObject says whether a value is a JSON object.
func isObject(b []byte) bool {
	i := skipSpace(b, 0)
	return i < len(b) && b[i] == '{'
}

func isArray(b []byte) bool {
	i := skipSpace(b, 0)
	return i < len(b) && b[i] == '['
}

// members calls f for each member of an object, in order, with the key as it
// stands there (quotes included) and the value, until f gives false. Of
// anything but an object it sees nothing.
func members(b []byte, f func(key, value []byte) bool) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return
	}
	i = skipSpace(b, i+1)
	for i < len(b) && b[i] == '"' {
		end := skipString(b, i)
		key := b[i:end]
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ':' {
			return
		}
		i = skipSpace(b, i+1)
		end = skipValue(b, i)
		if !f(key, b[i:end]) {
			return
		}
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ',' {
			return
		}
		i = skipSpace(b, i+1)
	}
}

// elements calls f for each element of an array, in order, until f gives
// false. Of anything but an array it sees nothing.
func elements(b []byte, f func(value []byte) bool) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '[' {
		return
	}
	i = skipSpace(b, i+1)
	for i < len(b) && b[i] != ']' {
		end := skipValue(b, i)
		if end == i || !f(b[i:end]) {
			return
		}
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ',' {
			return
		}
		i = skipSpace(b, i+1)
	}
}

// plain gives the bytes of a string or key: a part of b itself when nothing in
// it is escaped, else a copy. The second result is false for any other value.
func plain(b []byte) ([]byte, bool) {
	if len(b) < 2 || b[0] != '"' {
		return nil, false
	}
	for _, c := range b {
		if c == '\\' {
			var s string
			if json.Unmarshal(b, &s) != nil {
				return nil, false
			}
			return []byte(s), true
		}
	}
	return b[1 : len(b)-1], true
}

// text is plain as a string.
func text(b []byte) (string, bool) {
	p, ok := plain(b)
	return string(p), ok
}

// textOrNumber takes an id or a number that some senders quote and some do not.
func textOrNumber(b []byte) (string, bool) {
	if s, ok := text(b); ok {
		return s, true
	}
	if len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9') {
		return string(b), true
	}
	return "", false
}

// member gives the value of the last member of that name, or nil.
func member(b []byte, name string) []byte {
	var found []byte
	members(b, func(key, value []byte) bool {
		if k, _ := plain(key); string(k) == name {
			found = value
		}
		return true
	})
	return found
}

// clip makes s fit for storing: valid UTF-8 without NUL, and at most limit bytes.
func clip(s string, limit int) string {
	s = cut(s, limit)
	if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
		s = cut(s, limit) // what stands for a byte has three
	}
	return s
}

// cut leaves at most limit bytes of s, and no part of a character at their end.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for len(s) > 0 {
		if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}
