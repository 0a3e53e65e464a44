package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// controlRoutes adds /_sim/…: the ledger, and settings at run time.
func (s *Server) controlRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /_sim/health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /_sim/ledger", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.Ledger())
	})
	mux.HandleFunc("GET /_sim/ledger/messages", s.serveAccepts)
	mux.HandleFunc("GET /_sim/ledger/missed", s.serveMissed)
	mux.HandleFunc("PUT /_sim/chaos", s.serveChaos)
	mux.HandleFunc("GET /_sim/chaos", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.Chaos())
	})
	mux.HandleFunc("PUT /_sim/limits", s.serveLimits)
	mux.HandleFunc("PUT /_sim/phones/{id}", s.servePhone)
	mux.HandleFunc("PUT /_sim/webhook", s.serveWebhook)
	mux.HandleFunc("PUT /_sim/latency", s.serveLatency)
	mux.HandleFunc("GET /_sim/refusals", s.serveRefusals)
	mux.HandleFunc("GET /_sim/rates", s.serveRates)
	mux.HandleFunc("PUT /_sim/errors", s.serveSetError)
	mux.HandleFunc("GET /_sim/errors", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string][]ErrorState{"errors": s.Errors()})
	})
	mux.HandleFunc("DELETE /_sim/errors", action(s.ClearErrors))
	mux.HandleFunc("PUT /_sim/usage", s.serveUsage)
	mux.HandleFunc("POST /_sim/webhooks/inbound", s.serveInbound)
	mux.HandleFunc("POST /_sim/webhooks/field", s.serveNotice)
	mux.HandleFunc("POST /_sim/reset", action(s.Reset))
	mux.HandleFunc("POST /_sim/webhooks/hold", action(s.Hold))
	mux.HandleFunc("POST /_sim/webhooks/release", action(s.Release))
	mux.HandleFunc("POST /_sim/webhooks/outage", s.serveOutage)
}

func action(f func()) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		f()
		w.WriteHeader(http.StatusNoContent)
	}
}

func controlError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"error": text})
}

// serveAccepts pages through the accepts; next is the after of the following page.
func (s *Server) serveAccepts(w http.ResponseWriter, r *http.Request) {
	after, limit, ok := readPage(w, r)
	if !ok {
		return
	}
	page := struct {
		Messages []Accept `json:"messages"`
		Next     int64    `json:"next"`
	}{s.Accepts(after, limit), after}
	if n := len(page.Messages); n > 0 {
		page.Next = page.Messages[n-1].Seq
	}
	writeJSON(w, http.StatusOK, page)
}

// readPage reads after and limit of a request; it answers 400 itself.
func readPage(w http.ResponseWriter, r *http.Request) (after int64, limit int, ok bool) {
	var n [2]int64
	for i, p := range []struct {
		name string
		def  int64
	}{{"after", 0}, {"limit", 1000}} {
		var err error
		if n[i], err = intParam(r.URL.Query(), p.name, p.def); err != nil {
			controlError(w, http.StatusBadRequest, err.Error())
			return 0, 0, false
		}
	}
	return n[0], int(min(n[1], 10_000)), true
}

func intParam(q url.Values, name string, def int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s is not a whole number from 0 on", name)
	}
	return n, nil
}

func (s *Server) serveLimits(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Scope     string `json:"scope"`
		ID        string `json:"id"`
		PerSecond int    `json:"per_second"`
		WindowMS  int64  `json:"window_ms"`
		Burst     int    `json:"burst"`
	}
	if !readControl(w, r, &in) {
		return
	}
	if err := s.SetLimits(in.Scope, in.ID, Limit{in.PerSecond, milliseconds(in.WindowMS), in.Burst}); err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// servePhone changes those of a phone number's settings that the body names.
func (s *Server) servePhone(w http.ResponseWriter, r *http.Request) {
	var in struct {
		WABAID             *string `json:"waba_id"`
		AppID              *string `json:"app_id"`
		DisplayPhoneNumber *string `json:"display_phone_number"`
		PerSecond          *int    `json:"per_second"`
		Throughput         *string `json:"throughput"`
		VerifiedName       *string `json:"verified_name"`
		QualityRating      *string `json:"quality_rating"`
		Status             *string `json:"status"`
		MessagingLimit     *string `json:"messaging_limit"`
	}
	if !readControl(w, r, &in) {
		return
	}
	if !idLike(r.PathValue("id")) {
		controlError(w, http.StatusBadRequest, "a phone number id has digits only, 32 at most")
		return
	}
	if t := in.Throughput; t != nil && !throughputLevels[*t] {
		controlError(w, http.StatusBadRequest, "throughput is none of STANDARD, HIGH, NOT_APPLICABLE")
		return
	}
	if in.PerSecond != nil && *in.PerSecond > maxLimit {
		controlError(w, http.StatusBadRequest, fmt.Sprintf("per_second is above %d", maxLimit))
		return
	}
	err := s.updatePhone(r.PathValue("id"), func(cfg *PhoneConfig) {
		for _, f := range []struct{ from, to *string }{
			{in.WABAID, &cfg.WABAID}, {in.AppID, &cfg.AppID}, {in.DisplayPhoneNumber, &cfg.DisplayPhoneNumber},
			{in.Throughput, &cfg.Throughput}, {in.VerifiedName, &cfg.VerifiedName}, {in.QualityRating, &cfg.QualityRating},
			{in.Status, &cfg.Status}, {in.MessagingLimit, &cfg.MessagingLimit},
		} {
			if f.from != nil {
				*f.to = *f.from
			}
		}
	}, in.PerSecond)
	if err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) serveWebhook(w http.ResponseWriter, r *http.Request) {
	var in struct {
		URL       string `json:"url"`
		AppSecret string `json:"app_secret"`
	}
	if !readControl(w, r, &in) {
		return
	}
	if u, err := url.Parse(in.URL); in.URL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		controlError(w, http.StatusBadRequest, "url is not an http or https URL")
		return
	}
	s.SetWebhook(in.URL, in.AppSecret)
	w.WriteHeader(http.StatusNoContent)
}

// serveLatency changes those of the four times that the body names.
func (s *Server) serveLatency(w http.ResponseWriter, r *http.Request) {
	var in struct {
		LatencyMS     *int64 `json:"latency_ms"`
		JitterMS      *int64 `json:"jitter_ms"`
		StatusDelayMS *int64 `json:"status_delay_ms"`
		SlowAnswerMS  *int64 `json:"slow_answer_ms"`
	}
	if !readControl(w, r, &in) {
		return
	}
	s.change(func(v *settings) {
		for _, f := range []struct {
			from *int64
			to   *time.Duration
		}{{in.LatencyMS, &v.latency}, {in.JitterMS, &v.jitter}, {in.StatusDelayMS, &v.statusDelay}, {in.SlowAnswerMS, &v.slowAnswer}} {
			if f.from != nil {
				*f.to = milliseconds(max(*f.from, 0))
			}
		}
	})
	w.WriteHeader(http.StatusNoContent)
}

// milliseconds keeps to a day, far beyond any use, so that nothing overflows.
func milliseconds(n int64) time.Duration {
	return time.Duration(min(max(n, -1), 86_400_000)) * time.Millisecond
}

// readControl reads a control request's body; it answers 400 itself.
func readControl(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 512<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		controlError(w, http.StatusBadRequest, "reading the body: "+err.Error())
		return false
	}
	return true
}
