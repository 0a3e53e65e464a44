package ctl

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// number shows a rate with at most three decimals; none when it is nil.
func number(f *float64, none string) string {
	if f == nil {
		return none
	}
	return strconv.FormatFloat(math.Round(*f*1000)/1000, 'f', -1, 64)
}

func drain(seconds *float64) string {
	if seconds == nil {
		return "?"
	}
	if *seconds == 0 {
		return "-"
	}
	return short(time.Duration(min(*seconds, 1e9) * float64(time.Second)))
}

// short shows a duration in its two greatest units.
func short(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// end shows when something ends: until when, and in how long.
func end(until *time.Time, now time.Time) string {
	if until == nil {
		return "until lifted"
	}
	return "until " + until.UTC().Format(time.RFC3339) + " (" + short(until.Sub(now)) + ")"
}

func orDash(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return flat(*s)
}
