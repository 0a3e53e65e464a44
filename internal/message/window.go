package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	_ "time/tzdata" // a container may have no time zones of its own
)

// Window is the times of a week at which a message may go out, in the time of its zones. Its JSON is how it is kept.
type Window struct {
	// From and To are times of day as HH:MM, and differ; a To before From is one of the next day.
	From string `json:"from"`
	To   string `json:"to"`
	// Timezone is an IANA zone that the sender gave; Zones are those of the recipient's number where none was given.
	// With neither the window is in UTC. With several it is open only while it is in all of them.
	Timezone string   `json:"timezone,omitempty"`
	Zones    []string `json:"zones,omitempty"`
	// Days are ISO weekdays, 1 for Monday, of the days on which the window opens; none means all.
	Days []int `json:"days,omitempty"`

	from, to  int // minutes of the day
	locations []*time.Location
}

// ParseWindow reads a window as it is kept. Its errors say what is wrong with it.
func ParseWindow(raw []byte) (Window, error) {
	var w Window
	if err := json.Unmarshal(raw, &w); err != nil {
		return Window{}, fmt.Errorf("reading a send window: %w", err)
	}
	var err error
	if w.from, err = ParseClock(w.From); err == nil {
		w.to, err = ParseClock(w.To)
	}
	if err == nil && w.from == w.to {
		err = errors.New("from and to are the same")
	}
	if err == nil && slices.ContainsFunc(w.Days, func(d int) bool { return d < 1 || d > 7 }) {
		err = errors.New("days are 1 to 7")
	}
	if err != nil {
		return Window{}, fmt.Errorf("reading a send window: %w", err)
	}
	zones := w.Zones
	if w.Timezone != "" {
		zones = []string{w.Timezone}
	}
	for _, name := range zones {
		loc, err := location(name)
		if err != nil {
			return Window{}, fmt.Errorf("reading a send window: %w", err)
		}
		w.locations = append(w.locations, loc)
	}
	if len(w.locations) == 0 {
		w.locations = []*time.Location{time.UTC}
	}
	return w, nil
}

// ParseClock reads a time of day from 00:00 to 23:59 and gives its minutes.
func ParseClock(s string) (int, error) {
	digit := func(i int) int { return int(s[i]) - '0' }
	if len(s) == 5 && s[2] == ':' && !slices.ContainsFunc([]int{0, 1, 3, 4}, func(i int) bool { return digit(i) < 0 || digit(i) > 9 }) {
		if h, m := digit(0)*10+digit(1), digit(3)*10+digit(4); h < 24 && m < 60 {
			return h*60 + m, nil
		}
	}
	return 0, errors.New("must be a time of day such as 08:00")
}

// locations keeps the zones that were asked for; there are some hundreds. Loading one reads its file.
var locations sync.Map

func location(name string) (*time.Location, error) {
	if loc, ok := locations.Load(name); ok {
		return loc.(*time.Location), nil //nolint:forcetypeassert // nothing else is put in
	}
	if name == "" || name == "Local" {
		return nil, errors.New("no time zone")
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("unknown time zone %.64q", name)
	}
	locations.Store(name, loc)
	return loc, nil
}

const (
	// lookAhead is how far ahead a time is looked for at which the window is open in all its zones.
	lookAhead = 8 * 24 * time.Hour
	// farAhead is enough for a window of one zone and one day a week whose day the clocks' change swallows.
	farAhead = 16 * 24 * time.Hour
)

// Open says whether a message may go out at that time, and when that changes next. Where the zones never agree within the
// 8 days from then, the first of them decides. A time of day that the clocks skip is the first that there is after it; one that
// comes twice is its first.
func (w Window) Open(at time.Time) (open bool, changes time.Time) {
	both := w.spans(w.locations[0], at, lookAhead)
	for _, loc := range w.locations[1:] {
		both = intersect(both, w.spans(loc, at, lookAhead))
	}
	if open, changes, ok := look(both, at, lookAhead); ok {
		return open, changes
	}
	open, changes, ok := look(w.spans(w.locations[0], at, farAhead), at, farAhead)
	if !ok {
		return false, at.Add(farAhead) // one that is never open is looked at again
	}
	return open, changes
}

type span struct{ from, to time.Time }

// spans lists when the window is open in one zone, from before at until some time ahead.
func (w Window) spans(loc *time.Location, at time.Time, ahead time.Duration) []span {
	local := at.In(loc)
	year, month, day := local.Date()
	var all []span
	for d := -2; d <= int(ahead/(24*time.Hour))+1; d++ {
		weekday := int(time.Date(year, month, day+d, 0, 0, 0, 0, time.UTC).Weekday())
		if weekday == 0 {
			weekday = 7
		}
		if len(w.Days) > 0 && !slices.Contains(w.Days, weekday) {
			continue
		}
		end := day + d
		if w.to < w.from {
			end++
		}
		s := span{clockAt(year, month, day+d, w.from, loc), clockAt(year, month, end, w.to, loc)}
		switch last := len(all) - 1; {
		case !s.from.Before(s.to): // swallowed by a change of the clocks
		case last >= 0 && !s.from.After(all[last].to):
			all[last].to = s.to
		default:
			all = append(all, s)
		}
	}
	return all
}

// clockAt gives the first instant at which the clocks of a zone show a minute of a day or, where they skip it, a later one.
func clockAt(year int, month time.Month, day, minute int, loc *time.Location) time.Time {
	wall := time.Date(year, month, day, 0, minute, 0, 0, time.UTC)
	offset := func(at time.Time) time.Duration { _, s := at.In(loc).Zone(); return time.Duration(s) * time.Second }
	// A change lies in between, or the two are the same.
	before, after := offset(wall.Add(-26*time.Hour)), offset(wall.Add(26*time.Hour))
	first, second := wall.Add(-max(before, after)), wall.Add(-min(before, after))
	for _, t := range []time.Time{first, second} {
		if offset(t) == wall.Sub(t) {
			return t
		}
	}
	from, _ := second.In(loc).ZoneBounds()
	return from
}

func intersect(a, b []span) []span {
	var both []span
	for i, j := 0, 0; i < len(a) && j < len(b); {
		s := span{a[i].from, a[i].to}
		if b[j].from.After(s.from) {
			s.from = b[j].from
		}
		if b[j].to.Before(s.to) {
			s.to = b[j].to
		}
		if s.from.Before(s.to) {
			both = append(both, s)
		}
		if a[i].to.Before(b[j].to) {
			i++
		} else {
			j++
		}
	}
	return both
}

// look finds at in the spans; ok is false when none is open then or opens within ahead.
func look(spans []span, at time.Time, ahead time.Duration) (open bool, changes time.Time, ok bool) {
	for _, s := range spans {
		switch {
		case !s.to.After(at):
		case !s.from.After(at):
			return true, s.to.UTC(), true
		case s.from.Sub(at) <= ahead:
			return false, s.from.UTC(), true
		}
	}
	return false, time.Time{}, false
}
