package message

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWindowOpens(t *testing.T) {
	for name, c := range map[string]struct {
		window, at string
		open       bool
		changes    string
	}{
		"before it":       {`{"from":"08:00","to":"21:00","timezone":"Europe/Rome"}`, "2026-11-27T06:59:59Z", false, "2026-11-27T07:00:00Z"},
		"as it opens":     {`{"from":"08:00","to":"21:00","timezone":"Europe/Rome"}`, "2026-11-27T07:00:00Z", true, "2026-11-27T20:00:00Z"},
		"as it closes":    {`{"from":"08:00","to":"21:00","timezone":"Europe/Rome"}`, "2026-11-27T20:00:00Z", false, "2026-11-28T07:00:00Z"},
		"no zone is UTC":  {`{"from":"08:00","to":"21:00"}`, "2026-11-27T07:30:00Z", false, "2026-11-27T08:00:00Z"},
		"over a weekend":  {`{"from":"08:00","to":"21:00","days":[1,2,3,4,5]}`, "2026-11-27T21:00:00Z", false, "2026-11-30T08:00:00Z"},
		"one day a week":  {`{"from":"08:00","to":"09:00","days":[7]}`, "2026-11-29T09:00:00Z", false, "2026-12-06T08:00:00Z"},
		"until midnight":  {`{"from":"08:00","to":"00:00"}`, "2026-11-27T23:59:00Z", true, "2026-11-28T00:00:00Z"},
		"over midnight":   {`{"from":"20:00","to":"02:00","days":[5]}`, "2026-11-28T01:00:00Z", true, "2026-11-28T02:00:00Z"},
		"its day only":    {`{"from":"20:00","to":"02:00","days":[5]}`, "2026-11-27T01:00:00Z", false, "2026-11-27T20:00:00Z"},
		"two zones":       {`{"from":"08:00","to":"21:00","zones":["America/New_York","America/Los_Angeles"]}`, "2026-11-27T14:00:00Z", false, "2026-11-27T16:00:00Z"},
		"two zones close": {`{"from":"08:00","to":"21:00","zones":["America/New_York","America/Los_Angeles"]}`, "2026-11-27T16:00:00Z", true, "2026-11-28T02:00:00Z"},
		"never in both":   {`{"from":"08:00","to":"10:00","zones":["Europe/Rome","Asia/Tokyo"]}`, "2026-11-27T08:00:00Z", true, "2026-11-27T09:00:00Z"},
		"given over own":  {`{"from":"08:00","to":"10:00","timezone":"UTC","zones":["Asia/Tokyo"]}`, "2026-11-27T08:00:00Z", true, "2026-11-27T10:00:00Z"},
		// Clocks in Rome go from 02:00 to 03:00 on 2026-03-29 and from 03:00 to 02:00 on 2026-10-25.
		"a skipped start":     {`{"from":"02:30","to":"05:00","timezone":"Europe/Rome"}`, "2026-03-29T00:00:00Z", false, "2026-03-29T01:00:00Z"},
		"a skipped end":       {`{"from":"01:00","to":"02:30","timezone":"Europe/Rome"}`, "2026-03-29T00:30:00Z", true, "2026-03-29T01:00:00Z"},
		"a skipped window":    {`{"from":"02:10","to":"02:50","timezone":"Europe/Rome","days":[7]}`, "2026-03-28T12:00:00Z", false, "2026-04-05T00:10:00Z"},
		"a repeated start":    {`{"from":"02:30","to":"05:00","timezone":"Europe/Rome"}`, "2026-10-25T00:00:00Z", false, "2026-10-25T00:30:00Z"},
		"a repeated end":      {`{"from":"01:00","to":"02:30","timezone":"Europe/Rome"}`, "2026-10-25T00:00:00Z", true, "2026-10-25T00:30:00Z"},
		"after a short day":   {`{"from":"08:00","to":"21:00","timezone":"Europe/Rome"}`, "2026-03-28T21:00:00Z", false, "2026-03-29T06:00:00Z"},
		"after a long day":    {`{"from":"08:00","to":"21:00","timezone":"Europe/Rome"}`, "2026-10-24T21:00:00Z", false, "2026-10-25T07:00:00Z"},
		"half an hour of DST": {`{"from":"02:10","to":"04:00","timezone":"Australia/Lord_Howe"}`, "2026-10-03T12:00:00Z", false, "2026-10-03T15:30:00Z"},
		// Samoa had no 30 December 2011.
		"a day that was not": {`{"from":"10:00","to":"12:00","timezone":"Pacific/Apia"}`, "2011-12-29T23:00:00Z", false, "2011-12-30T20:00:00Z"},
	} {
		w, err := ParseWindow([]byte(c.window))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if open, changes := w.Open(at(t, c.at)); open != c.open || changes.Format(time.RFC3339) != c.changes {
			t.Errorf("%s: at %s open is %t until %s, want %t until %s", name, c.at, open, changes.Format(time.RFC3339), c.open, c.changes)
		}
	}
}

// Away from the clocks' changes the window is what the clocks say, and it changes when it says.
func TestWindowAgreesWithTheClocks(t *testing.T) {
	zones := []string{"UTC", "Europe/Rome", "America/New_York", "Asia/Kathmandu", "Pacific/Chatham", "Asia/Tokyo"}
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.IntRange(0, 1439).Draw(t, "from")
		to := (from + rapid.IntRange(1, 1439).Draw(t, "length")) % 1440
		days := rapid.SliceOfNDistinct(rapid.IntRange(1, 7), 1, 7, func(d int) int { return d }).Draw(t, "days")
		picked := rapid.SliceOfNDistinct(rapid.SampledFrom(zones), 1, 3, func(z string) string { return z }).Draw(t, "zones")
		raw := fmt.Sprintf(`{"from":"%02d:%02d","to":"%02d:%02d","days":%s,"zones":["%s"]}`, from/60, from%60, to/60, to%60,
			strings.ReplaceAll(fmt.Sprint(days), " ", ","), strings.Join(picked, `","`))
		w, err := ParseWindow([]byte(raw))
		if err != nil {
			t.Fatal(raw, err)
		}
		now := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, 20*24*3600).Draw(t, "at")) * time.Second)
		var locs []*time.Location
		for _, z := range picked {
			loc, err := time.LoadLocation(z)
			if err != nil {
				t.Fatal(err)
			}
			locs = append(locs, loc)
		}
		has := func(d int) bool { return slices.Contains(days, d) }
		says := func(at time.Time) bool { // of all the zones
			for _, loc := range locs {
				local := at.In(loc)
				minute, day := local.Hour()*60+local.Minute(), int(local.Weekday()+6)%7+1
				yesterday := (day+5)%7 + 1
				in := from < to && minute >= from && minute < to && has(day) ||
					from > to && (minute >= from && has(day) || minute < to && has(yesterday))
				if !in {
					return false
				}
			}
			return true
		}
		agrees := false
		for m := range 8 * 24 * 60 {
			if says(now.Truncate(time.Minute).Add(time.Duration(m) * time.Minute)) {
				agrees = true
				break
			}
		}
		open, changes := w.Open(now)
		if !changes.After(now) {
			t.Fatalf("%s at %s changes at %s", raw, now, changes)
		}
		if !agrees {
			return // the first zone decides, which the table tests
		}
		if open != says(now) || says(changes) == open || says(changes.Add(-time.Second)) != open {
			t.Fatalf("%s at %s: open is %t until %s; the clocks say %t, and %t then", raw, now, open, changes, says(now), says(changes))
		}
	})
}

func TestWindowsThatAreNone(t *testing.T) {
	for _, raw := range []string{
		``, `[]`, `{}`, `{"from":"8:00","to":"21:00"}`, `{"from":"08:00","to":"24:00"}`, `{"from":"08:00","to":"08:00"}`, `{"from":"08:60","to":"09:00"}`,
		`{"from":"08:00","to":"21:00","days":[0]}`, `{"from":"08:00","to":"21:00","days":[8]}`,
		`{"from":"08:00","to":"21:00","timezone":"Mars/Olympus"}`, `{"from":"08:00","to":"21:00","zones":["Local"]}`, `{"from":"08:00","to":"21:00","zones":[""]}`,
	} {
		if w, err := ParseWindow([]byte(raw)); err == nil {
			t.Errorf("%s is taken for %+v", raw, w)
		}
	}
}
