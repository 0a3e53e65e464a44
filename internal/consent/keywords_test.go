package consent

import (
	"context"
	"errors"
	"testing"
	"time"

	"wagate/internal/store"
)

func TestFold(t *testing.T) {
	for in, want := range map[string]string{
		"STOP": "stop", " stop. ": "stop", "Stop!!!": "stop", "\"stop\"": "stop", "🛑️ STOP ✋️": "stop", "stop\n": "stop",
		"stop   promo": "stop promo", "don't stop": "don't stop", "S.T.O.P": "s.t.o.p", "ÑO": "ño", "ОТПИСАТЬСЯ": "отписаться",
		"बंद करो": "बंद करो", "बंद करो।": "बंद करो", "1": "1", "👍": "", "": "", "...": "", "é́!": "é́", "\xff": "",
	} {
		if got := Fold(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// What is compared is folded once: folding it again changes nothing.
func FuzzFold(f *testing.F) {
	for _, s := range []string{"STOP!", " ß ", "ǆ", "İ", "\u0301a\u0301 b", "ﬁn", "\xffa"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := Fold(s)
		if twice := Fold(once); twice != once {
			t.Errorf("%q: %q, then %q", s, once, twice)
		}
	})
}

func TestWish(t *testing.T) {
	now := time.Now()
	loads := 0
	var fails error
	rows := map[string]store.Keywords{"100": {
		OptOut: map[string][]string{"en": {"STOP", "Unsubscribe"}, "it": {"basta così"}},
		OptIn:  map[string][]string{"en": {"START", "stop"}},
	}}
	k := NewKeywords(func(context.Context) (map[string]store.Keywords, error) { loads++; return rows, fails }, func() time.Time { return now })
	for _, c := range []struct {
		waba  string
		texts []string
		want  Wish
	}{
		{"100", []string{"stop"}, Stop}, {"100", []string{"Stop."}, Stop}, {"100", []string{"BASTA  COSÌ!"}, Stop}, {"100", []string{"start"}, Resume},
		{"100", []string{"please stop"}, None}, {"100", []string{"hello", "UNSUBSCRIBE"}, Stop}, {"100", []string{"start", "stop"}, Stop},
		{"100", nil, None}, {"100", []string{"👍"}, None}, {"101", []string{"stop"}, None},
	} {
		got, err := k.Wish(t.Context(), c.waba, c.texts)
		if err != nil || got != c.want {
			t.Errorf("%s %q: %v, %v, want %v", c.waba, c.texts, got, err, c.want)
		}
	}
	if loads != 1 {
		t.Errorf("read %d times within a moment", loads)
	}
	now, rows = now.Add(3*time.Second), map[string]store.Keywords{}
	if got, err := k.Wish(t.Context(), "100", []string{"stop"}); got != None || err != nil || loads != 2 {
		t.Errorf("after a change: %v, %v, read %d times", got, err, loads)
	}
	now, fails = now.Add(3*time.Second), errors.New("away")
	if _, err := k.Wish(t.Context(), "100", []string{"stop"}); err == nil {
		t.Error("a failed reading was taken for no keywords")
	}
}
