package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	useMessages   = "whatsapp"
	useManagement = "whatsapp_business_management"

	maxUsage = 1000 // percent
)

// AppUsage is the content of X-App-Usage, in percent of what the app may use.
type AppUsage struct {
	CallCount    int `json:"call_count"`
	TotalCPUTime int `json:"total_cputime"`
	TotalTime    int `json:"total_time"`
}

// Usage says which usage headers answers carry. The zero value means none.
type Usage struct {
	// App goes out as X-App-Usage; nil means none, or what Auto makes of it.
	App *AppUsage `json:"app,omitempty"`
	// WABA is the call_count of X-Business-Use-Case-Usage in percent, by WABA id.
	WABA map[string]int `json:"waba,omitempty"`
	// Auto derives the headers of those not named above from the app's, the WABA's and
	// the WABA's management limit, where its window is longer than a second; a WABA
	// that is over its limit is also told after how many minutes it may call again.
	Auto bool `json:"auto,omitempty"`
}

func (u Usage) on() bool { return u.Auto || u.App != nil || len(u.WABA) > 0 }

func (u Usage) check() error {
	percent := func(n int) bool { return n >= 0 && n <= maxUsage }
	if a := u.App; a != nil && !(percent(a.CallCount) && percent(a.TotalCPUTime) && percent(a.TotalTime)) {
		return fmt.Errorf("app: a usage is not from 0 to %d percent", maxUsage)
	}
	if len(u.WABA) > maxNames {
		return errors.New("waba: too many")
	}
	for id, n := range u.WABA {
		if !percent(n) {
			return fmt.Errorf("waba %q: a usage is not from 0 to %d percent", id, maxUsage)
		}
	}
	return nil
}

// SetUsage sets the usage headers of answers from the next request on, all at once.
func (s *Server) SetUsage(u Usage) error {
	if err := u.check(); err != nil {
		return fmt.Errorf("setting the usage: %w", err)
	}
	kept := Usage{Auto: u.Auto, WABA: make(map[string]int, len(u.WABA))}
	for id, n := range u.WABA {
		kept.WABA[id] = n
	}
	if u.App != nil {
		app := *u.App
		kept.App = &app
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usage = kept
	return nil
}

// usageHeaders are the two headers of one answer; empty means none.
type usageHeaders struct{ app, business string }

func (u usageHeaders) set(h http.Header) {
	if u.app != "" {
		h.Set("X-App-Usage", u.app)
	}
	if u.business != "" {
		h.Set("X-Business-Use-Case-Usage", u.business)
	}
}

// usageOf makes the headers of an answer: app and waba are whose usage it is, use the
// business use case, sc the scope that counts it. The caller holds the lock.
func (s *Server) usageOf(app *scope, waba, use string, sc *scope, limit Limit, fault *graphError, arrival time.Duration) (out usageHeaders) {
	regain := 0
	if fault != nil {
		regain = fault.regain
	}
	if !s.usage.on() && regain == 0 {
		return out
	}
	if own := s.usage.App; own != nil {
		out.app = header(own)
	} else if n, ok := s.percent(app, app.limit(s.scopes.defApp), arrival); ok {
		out.app = header(AppUsage{CallCount: n})
	}
	n, ok := s.usage.WABA[waba]
	if !ok {
		if n, ok = s.percent(sc, limit, arrival); ok && regain == 0 && fault != nil {
			regain = int((sc.accepts.roomIn(arrival, limit) + time.Minute - 1) / time.Minute)
		}
	}
	if !ok && regain > 0 {
		n, ok = 100, true
	}
	if ok {
		type entry struct {
			Type string `json:"type"`
			AppUsage
			Regain int `json:"estimated_time_to_regain_access"`
		}
		out.business = header(map[string][]entry{waba: {{use, AppUsage{CallCount: n}, regain}}})
	}
	return out
}

// percent is how much of its limit a scope has used, for Auto.
func (s *Server) percent(sc *scope, limit Limit, arrival time.Duration) (int, bool) {
	if !s.usage.Auto || limit.Max <= 0 || limit.window() <= time.Second {
		return 0, false
	}
	return sc.held(arrival, limit) * 100 / limit.Max, true
}

func header(v any) string {
	out, err := json.Marshal(v)
	if err != nil { // only our own plain structs come here
		return ""
	}
	return string(out)
}

func (s *Server) serveUsage(w http.ResponseWriter, r *http.Request) {
	var in Usage
	if !readControl(w, r, &in) {
		return
	}
	if err := s.SetUsage(in); err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
