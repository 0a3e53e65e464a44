package policy

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"wagate/internal/cloudapi"
)

// What is written below comes from Meta's pages on error codes, not from the code under test: for every code that can
// answer a send or come in a failed webhook, what the gateway does next.
//
// by answer and by webhook: fail, again (a new try), unknown. pause: the scope and how long, first and longest, or lifted.
var table = []struct {
	code, subcode   int
	answer, webhook Fate
	pause           string
	more            string // slow, slow/s, alert, off, suppress 24h, suppress, wait …
}{
	// Tokens and permissions: the refusal is final, the WABA waits and is probed.
	{0, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{3, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{10, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{102, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{104, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{190, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{190, 458, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{190, 459, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{190, 460, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{190, 463, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{190, 464, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{190, 467, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{200, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{210, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{299, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	{131005, 0, Fail, Fail, "waba 1m0s-1h0m0s", "alert"},
	// Throttles: their own scope waits, the message costs nothing.
	{4, 0, Again, Again, "app 1m0s-1h0m0s", "free"},
	{4, 2390008, Again, Again, "app 1m0s-1h0m0s", "free"},
	{17, 0, Again, Again, "app 1m0s-1h0m0s", "free"},
	{32, 0, Again, Again, "app 1m0s-1h0m0s", "free"},
	{341, 0, Again, Again, "app 1m0s-1h0m0s", "free"},
	{613, 0, Again, Again, "app 1m0s-1h0m0s", "free"},
	{80007, 0, Again, Again, "waba 1m0s-1h0m0s", "free slow/s"},
	{80008, 0, Again, Again, "waba 1m0s-1h0m0s", "free"},
	{130429, 0, Again, Again, "phone 1s-1m0s", "free slow"},
	{130429, 2494055, Again, Again, "phone 1s-1m0s", "free slow"},
	{131048, 0, Again, Again, "phone 1h0m0s-24h0m0s", "free alert"},
	{131056, 0, Again, Again, "", "free wait 1s"},
	{131057, 0, Again, Again, "phone 1m0s-10m0s", "free"},
	{2494100, 0, Again, Again, "phone 1m0s-10m0s", "free"},
	{131208, 0, Again, Again, "phone 1m0s-1h0m0s", "free"},
	{132069, 0, Again, Again, "flow 1h0m0s-1h0m0s", "free"},
	{132015, 0, Again, Again, "template 3h0m0s-6h0m0s", "free alert"},
	// Accounts and phone numbers that cannot send until somebody mends them.
	{368, 0, Fail, Fail, "waba lifted", "alert"},
	{131031, 0, Fail, Fail, "waba lifted", "alert"},
	{131042, 0, Fail, Fail, "waba lifted", "alert"},
	{131044, 0, Fail, Fail, "waba lifted", "alert"},
	{131064, 0, Fail, Fail, "waba lifted", "alert"},
	{131037, 0, Fail, Fail, "phone lifted", "alert"},
	{131045, 0, Fail, Fail, "phone lifted", "alert"},
	{133010, 0, Fail, Fail, "phone lifted", "alert"},
	{33, 0, Fail, Fail, "phone 1m0s-1h0m0s", "alert"},
	{100, 33, Fail, Fail, "phone 1m0s-1h0m0s", "alert"},
	{133000, 0, Fail, Fail, "phone 1m0s-1h0m0s", "alert"},
	{133006, 0, Fail, Fail, "phone 1m0s-1h0m0s", "alert"},
	// Templates and flows.
	{132001, 0, Fail, Fail, "template 1m0s-1h0m0s", ""},
	{132016, 0, Fail, Fail, "template lifted", "alert off"},
	{132068, 0, Fail, Fail, "flow 1m0s-1h0m0s", ""},
	{134101, 0, Again, Again, "", "wait 10m0s"},
	// The recipient.
	{1026, 0, Fail, Fail, "", ""},
	{130403, 0, Fail, Fail, "", ""},
	{130472, 0, Fail, Fail, "", ""},
	{130497, 0, Fail, Fail, "", ""},
	{131026, 0, Fail, Fail, "", ""},
	{131030, 0, Fail, Fail, "", ""},
	{131047, 0, Fail, Fail, "", ""},
	{131049, 0, Again, Again, "", "wait 24h0m0s suppress 24h0m0s"},
	{131050, 0, Fail, Fail, "", "suppress"},
	{137000, 0, Fail, Fail, "", ""},
	{138001, 0, Fail, Fail, "", ""},
	{138006, 0, Fail, Fail, "", ""},
	{138009, 0, Again, Again, "", "wait 24h0m0s"},
	// The message.
	{100, 0, Fail, Fail, "", ""},
	{131008, 0, Fail, Fail, "", ""},
	{131009, 0, Fail, Fail, "", ""},
	{131014, 0, Fail, Fail, "", ""}, // again once by link: below
	{131053, 0, Fail, Fail, "", ""},
	{131020, 0, Fail, Fail, "", ""},
	{131021, 0, Fail, Fail, "", ""},
	{131041, 0, Fail, Fail, "", ""},
	{131051, 0, Fail, Fail, "", ""},
	{131052, 0, Fail, Fail, "", ""},
	{131055, 0, Fail, Fail, "", ""},
	{131062, 0, Fail, Fail, "", ""},
	{131063, 0, Fail, Fail, "", ""},
	{132000, 0, Fail, Fail, "", ""},
	{132005, 0, Fail, Fail, "", ""},
	{132007, 0, Fail, Fail, "", ""},
	{132008, 0, Fail, Fail, "", ""},
	{132012, 0, Fail, Fail, "", ""},
	{132018, 0, Fail, Fail, "", ""},
	{134011, 0, Fail, Fail, "", ""},
	{134100, 0, Fail, Fail, "", ""},
	{134102, 0, Fail, Fail, "", ""},
	{135000, 0, Fail, Fail, "", ""},
	// Groups.
	{131201, 0, Fail, Fail, "", ""},
	{131202, 0, Fail, Fail, "", ""},
	{131204, 0, Fail, Fail, "", ""},
	{131207, 0, Fail, Fail, "", ""},
	{131209, 0, Fail, Fail, "", ""},
	{131210, 0, Fail, Fail, "", ""},
	{131211, 0, Fail, Fail, "", ""},
	{131212, 0, Fail, Fail, "", ""},
	{131213, 0, Fail, Fail, "", ""},
	{131214, 0, Fail, Fail, "", ""},
	{131215, 0, Fail, Fail, "", ""},
	// Registration, calls, block lists, Flows, user names, number migration, insights, template editing: they answer no send,
	// and a send that they answered all the same fails and stops nothing.
	{133005, 0, Fail, Fail, "", ""},
	{133008, 0, Fail, Fail, "", ""},
	{133009, 0, Fail, Fail, "", ""},
	{133015, 0, Fail, Fail, "", ""},
	{133016, 0, Fail, Fail, "", ""},
	{131059, 0, Fail, Fail, "", ""},
	{138000, 0, Fail, Fail, "", ""},
	{138002, 0, Fail, Fail, "", ""},
	{138003, 0, Fail, Fail, "", ""},
	{138004, 0, Fail, Fail, "", ""},
	{138005, 0, Fail, Fail, "", ""},
	{138007, 0, Fail, Fail, "", ""},
	{138012, 0, Fail, Fail, "", ""},
	{138013, 0, Fail, Fail, "", ""},
	{138018, 0, Fail, Fail, "", ""},
	{139000, 0, Fail, Fail, "", ""},
	{139001, 0, Fail, Fail, "", ""},
	{139002, 0, Fail, Fail, "", ""},
	{139003, 0, Fail, Fail, "", ""},
	{139004, 0, Fail, Fail, "", ""},
	{139100, 0, Fail, Fail, "", ""},
	{139101, 0, Fail, Fail, "", ""},
	{139102, 0, Fail, Fail, "", ""},
	{139103, 0, Fail, Fail, "", ""},
	{147001, 0, Fail, Fail, "", ""},
	{147002, 0, Fail, Fail, "", ""},
	{147003, 0, Fail, Fail, "", ""},
	{147004, 0, Fail, Fail, "", ""},
	{147005, 0, Fail, Fail, "", ""},
	{200005, 0, Fail, Fail, "", ""},
	{200006, 0, Fail, Fail, "", ""},
	{200007, 0, Fail, Fail, "", ""},
	{1752041, 0, Fail, Fail, "", ""},
	{2388001, 0, Fail, Fail, "", ""},
	{2388012, 0, Fail, Fail, "", ""},
	{2388091, 0, Fail, Fail, "", ""},
	{2388093, 0, Fail, Fail, "", ""},
	{2388103, 0, Fail, Fail, "", ""},
	{2593107, 0, Fail, Fail, "", ""},
	{2593108, 0, Fail, Fail, "", ""},
	{100, 2388019, Fail, Fail, "", ""},
	{100, 2388039, Fail, Fail, "", ""},
	{100, 2388040, Fail, Fail, "", ""},
	{100, 2388047, Fail, Fail, "", ""},
	{100, 2388072, Fail, Fail, "", ""},
	{100, 2388073, Fail, Fail, "", ""},
	{100, 2388293, Fail, Fail, "", ""},
	{100, 2388299, Fail, Fail, "", ""},
	// Nobody can say by the answer; in a failed webhook it is proof, and one more try is allowed.
	{1, 0, Unknown, Again, "", ""},
	{2, 0, Unknown, Again, "", ""},
	{131000, 0, Unknown, Again, "", ""},
	{131016, 0, Unknown, Again, "", ""},
	{133004, 0, Again, Again, "", ""},
	// A code nobody knows is refused.
	{987654, 0, Fail, Fail, "", "unknown"},
}

func words(re Reaction) (pause, more string) {
	if p := re.Pause; p != nil {
		pause = string(re.Scope) + " "
		if p.UntilLifted {
			pause += "lifted"
		} else {
			pause += p.Base.String() + "-" + p.Limit.String()
		}
	}
	add := func(yes bool, word string) {
		if yes && more != "" {
			more += " "
		}
		if yes {
			more += word
		}
	}
	add(re.Free, "free")
	add(re.Slow, "slow")
	add(re.SlowIfPerSecond, "slow/s")
	add(re.Alert, "alert")
	add(re.TemplateOff, "off")
	add(re.Message == Again && re.Wait > 0, "wait "+re.Wait.String())
	add(re.Suppress > 0, "suppress "+re.Suppress.String())
	add(re.Suppress < 0, "suppress")
	add(!re.Known, "unknown")
	return pause, more
}

func TestEveryCode(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, c := range table {
		for _, webhook := range []bool{false, true} {
			want := c.answer
			if webhook {
				want = c.webhook
			}
			for _, status := range []int{400, 403, 500} { // throttles come as 400, permanent errors as 500
				if c.code == 987654 && status == 500 {
					continue // below
				}
				re := React(Input{Code: c.code, Subcode: c.subcode, HTTPStatus: status, Webhook: webhook, Now: now})
				pause, more := words(re)
				if re.Message != want || pause != c.pause || more != c.more {
					t.Errorf("%d/%d, webhook %v, status %d: %s, pause %q, %q; want %s, %q, %q", c.code, c.subcode, webhook, status, re.Message, pause, more, want, c.pause, c.more)
				}
			}
		}
	}
}

// Every code that is known stands above; 210 and 299 stand for the range of permissions.
func TestTheTableIsWhole(t *testing.T) {
	have, lines := map[int]bool{}, map[[2]int]bool{}
	for _, c := range table {
		if lines[[2]int{c.code, c.subcode}] {
			t.Errorf("%d/%d stands there twice", c.code, c.subcode)
		}
		lines[[2]int{c.code, c.subcode}] = true
		have[c.code] = true
		have[c.subcode] = true // Meta's pages print some subcodes as codes
	}
	known := 0
	for code := range 2_600_000 {
		if _, ok := cloudapi.Lookup(code, 0); !ok {
			continue
		}
		known++
		if !have[code] && (code <= 200 || code >= 300) {
			t.Errorf("code %d has no line", code)
		}
	}
	if known < 230 {
		t.Errorf("only %d codes are known", known)
	}
}

func TestBounds(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	soon, late, past := now.Add(time.Hour), now.Add(48*time.Hour), now.Add(-time.Second)
	for _, c := range []struct {
		name string
		in   Input
		want Fate
	}{
		{"cap on marketing, in time", Input{Code: 131049, Webhook: true, ExpiresAt: &late}, Again},
		{"cap on marketing, too late", Input{Code: 131049, Webhook: true, ExpiresAt: &soon}, Fail},
		{"cap on marketing, for the last time", Input{Code: 131049, Webhook: true, Redos: 3}, Fail},
		{"an authentication message does not wait a day", Input{Code: 131049, Webhook: true, Category: "authentication"}, Fail},
		{"proof that it was not sent", Input{Code: 131000, Webhook: true}, Again},
		{"proof a second time", Input{Code: 131000, Webhook: true, Redos: 1}, Fail},
		{"throughput, by webhook", Input{Code: 130429, Webhook: true, Redos: 4}, Again},
		{"throughput, by webhook, for the last time", Input{Code: 130429, Webhook: true, Redos: 5}, Fail},
		{"media by link", Input{Code: 131053, Webhook: true, ByLink: true}, Again},
		{"media by link, by answer", Input{Code: 131053, HTTPStatus: 400, ByLink: true}, Again},
		{"media by link a second time", Input{Code: 131053, Webhook: true, ByLink: true, Redos: 1}, Fail},
		{"media by link after a retry", Input{Code: 131053, HTTPStatus: 400, ByLink: true, Retries: 1}, Fail},
		{"media by id", Input{Code: 131053, Webhook: true}, Fail},
		{"media of ours", Input{Code: 131053, Webhook: true, OurMedia: true}, Again},
		{"media of ours, by answer", Input{Code: 131053, HTTPStatus: 400, OurMedia: true}, Again},
		{"media of ours after other tries", Input{Code: 131053, Webhook: true, OurMedia: true, Redos: 1, Retries: 3}, Again},
		{"media of ours, too late", Input{Code: 131053, Webhook: true, OurMedia: true, ExpiresAt: &past}, Fail},
		{"media of ours that Meta does not know", Input{Code: 100, HTTPStatus: 400, OurMedia: true, NoMedia: true}, Again},
		{"a media of Meta's that it does not know", Input{Code: 100, HTTPStatus: 400, NoMedia: true}, Fail},
		{"another fault beside media of ours", Input{Code: 100, HTTPStatus: 400, OurMedia: true}, Fail},
		{"media of ours and a fault of Meta's", Input{Code: 131000, HTTPStatus: 500, OurMedia: true, NoMedia: true}, Unknown},
		{"dropped with its paused template", Input{Code: 132015, Webhook: true, ExpiresAt: &late}, Again},
		{"dropped with its paused template, too late", Input{Code: 132015, Webhook: true, ExpiresAt: &soon}, Fail},
		{"dropped twice", Input{Code: 132015, Webhook: true, Redos: 1}, Fail},
		{"cap on marketing, by answer, for the last time", Input{Code: 131049, HTTPStatus: 400, Retries: 3}, Fail},
		{"retries by answer are no redos", Input{Code: 131049, Webhook: true, Retries: 3}, Again},
		{"template still syncing, a second time", Input{Code: 134101, HTTPStatus: 400, Retries: 1}, Fail},
		{"call permission, too late", Input{Code: 138009, HTTPStatus: 400, ExpiresAt: &soon}, Fail},
		{"media by link, redone before", Input{Code: 131014, HTTPStatus: 400, ByLink: true, Redos: 1}, Fail},
		{"a throttle by answer is never too late: the message expires by itself", Input{Code: 131048, HTTPStatus: 400, ExpiresAt: &soon, Throttles: 50, Retries: 50, Redos: 50}, Again},
		{"a held message by answer", Input{Code: 132015, HTTPStatus: 400, Category: "authentication", Throttles: 9}, Again},
		{"the spam limit, by webhook, too late", Input{Code: 131048, Webhook: true, ExpiresAt: &soon}, Fail},
		{"a webhook has no status", Input{Code: 100, Webhook: true, HTTPStatus: 429}, Fail},
		{"a token with 429", Input{Code: 190, HTTPStatus: 429}, Fail},
		{"bad parameter with 429", Input{Code: 100, HTTPStatus: 429}, Again},
		{"a code nobody knows, refused", Input{Code: 987654, HTTPStatus: 400}, Fail},
		{"a code nobody knows, with 500", Input{Code: 987654, HTTPStatus: 500}, Unknown},
		{"a code nobody knows, by webhook", Input{Code: 987654, Webhook: true}, Fail},
		{"429 with any code", Input{Code: 987654, HTTPStatus: 429}, Again},
	} {
		c.in.Now = now
		if re := React(c.in); re.Message != c.want {
			t.Errorf("%s: %s, want %s", c.name, re.Message, c.want)
		}
	}
	if re := React(Input{Code: 131049, Webhook: true, Redos: 3, Now: now}); re.Suppress != 24*time.Hour {
		t.Errorf("a message that is given up leaves its recipient alone for %v", re.Suppress)
	}
	if re := React(Input{Code: 987654, HTTPStatus: 429, Now: now}); re.Known || !re.Free || re.Scope != cloudapi.ScopePhone || re.Pause == nil || *re.Pause != (Pause{Base: time.Second, Limit: time.Minute}) {
		t.Errorf("429 with a code nobody knows: %+v, pause %+v", re, re.Pause)
	}
	if re := React(Input{Code: 131056, Webhook: true, Throttles: 1, Redos: 1, Now: now}); re.Wait != 16*time.Second {
		t.Errorf("pair limit by webhook, the third time: %v", re.Wait)
	}
	for n, seconds := range []int{1, 4, 16, 64, 256, 256} {
		if re := React(Input{Code: 131056, HTTPStatus: 400, Throttles: n, Now: now}); re.Wait != time.Duration(seconds)*time.Second {
			t.Errorf("pair limit, throttle %d: %v, want %d s", n, re.Wait, seconds)
		}
	}
}

func TestDelay(t *testing.T) {
	most := func(n int64) int64 { return n - 1 }
	least := func(int64) int64 { return 0 }
	p := Pause{Base: time.Second, Limit: time.Minute}
	for level, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		if got, want := p.Delay(level, 0, 0, most), time.Duration(seconds)*time.Second; got != want {
			t.Errorf("level %d: at most %v, want %v", level, got, want)
		}
		if got := p.Delay(level, 0, 0, least); got != time.Second/20 {
			t.Errorf("level %d: at least %v, want a twentieth of a second", level, got)
		}
	}
	if got := p.Delay(1000, 0, 0, most); got != time.Minute {
		t.Errorf("level 1000: %v", got)
	}
	if got := p.Delay(0, time.Hour, 0, least); got != time.Hour {
		t.Errorf("Meta asks for an hour: %v", got)
	}
	if got := (Pause{Base: time.Hour, Limit: 24 * time.Hour}).Delay(9, 0, 2*time.Hour, most); got != 2*time.Hour {
		t.Errorf("bounded by a setting: %v", got)
	}
	if got := (Pause{Base: time.Second, Limit: time.Minute}).Delay(0, time.Hour, time.Minute, most); got != time.Hour {
		t.Errorf("a setting shortens what Meta asks for: %v", got)
	}
	paused := Pause{Base: 3 * time.Hour, Limit: 6 * time.Hour, Least: 3 * time.Hour}
	if got := paused.Delay(0, 0, 0, least); got != 3*time.Hour {
		t.Errorf("shorter than the least: %v", got)
	}
	if got := paused.Delay(5, 0, 0, most); got != 6*time.Hour {
		t.Errorf("longer than the limit: %v", got)
	}
	if got := paused.Delay(0, 0, time.Minute, least); got != time.Minute {
		t.Errorf("the least outgrows a setting: %v", got)
	}
	if got := (Pause{UntilLifted: true}).Delay(3, time.Second, 0, rand.Int64N); got != time.Second {
		t.Errorf("until lifted: %v", got)
	}
}

func TestDelayStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "base"))
		p := Pause{Base: base, Limit: base + time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "more"))}
		lower := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "lower"))
		upper := time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "upper"))
		level := rapid.IntRange(-1, 200).Draw(t, "level")
		got := p.Delay(level, lower, upper, func(n int64) int64 { return rapid.Int64Range(0, n-1).Draw(t, "r") })
		switch {
		case got < lower:
			t.Fatalf("%v is under %v", got, lower)
		case upper > 0 && got > max(upper, lower):
			t.Fatalf("%v is over %v", got, upper)
		case upper == 0 && got < base/20, got > max(p.Limit, lower):
			t.Fatalf("%v of %+v", got, p)
		}
	})
}

func TestOnlyMediaOfOursAreRefreshed(t *testing.T) {
	for _, c := range []struct {
		in   Input
		want bool
	}{
		{Input{Code: 131053, Webhook: true, OurMedia: true}, true},
		{Input{Code: 131053, Webhook: true, OurMedia: true, ByLink: true}, true},
		{Input{Code: 131009, HTTPStatus: 400, OurMedia: true, NoMedia: true}, true},
		{Input{Code: 131053, Webhook: true, ByLink: true}, false},
		{Input{Code: 131047, Webhook: true, OurMedia: true}, false},
		{Input{Code: 130429, HTTPStatus: 400, OurMedia: true}, false},
	} {
		if got := React(c.in).Refresh; got != c.want {
			t.Errorf("%+v: %v", c.in, got)
		}
	}
}

// A message with a fallback template that was not used gets one new try for want of a service window, and for nothing else.
func TestAFallbackIsOneNewTry(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	past := now.Add(-time.Second)
	for _, c := range []struct {
		in   Input
		want bool
	}{
		{Input{Code: 131047, HTTPStatus: 400, Fallback: true}, true},
		{Input{Code: 131047, Webhook: true, Fallback: true, Redos: 3}, true},
		{Input{Code: 131047, HTTPStatus: 400}, false},
		{Input{Code: 131047, HTTPStatus: 400, Fallback: true, ExpiresAt: &past}, false},
		{Input{Code: 131026, HTTPStatus: 400, Fallback: true}, false},
		{Input{Code: 130429, HTTPStatus: 400, Fallback: true}, false},
	} {
		c.in.Now = now
		re := React(c.in)
		if re.Fallback != c.want || (c.want && (re.Message != Again || re.Free)) {
			t.Errorf("%+v: %+v, want %v", c.in, re, c.want)
		}
	}
}
