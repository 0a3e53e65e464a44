package dispatch

import (
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/sender"
)

type metrics struct {
	tries     *prometheus.CounterVec
	throttles *prometheus.CounterVec
	lateness  prometheus.Histogram
	latency   prometheus.Histogram
	late      prometheus.Counter
	takenOver prometheus.Counter
	held      *prometheus.CounterVec
	promoted  prometheus.Counter
	uploads   *prometheus.CounterVec

	uploadTime   prometheus.Histogram
	unknownCodes prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_tries_total", Help: "Tries at the Cloud API by how they ended.",
		}, []string{"outcome"}),
		throttles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_throttles_total", Help: "Throttle answers of the Cloud API by scope.",
		}, []string{"scope"}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wagate_slot_lateness_seconds", Help: "How long after its slot a try was begun.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .025},
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wagate_post_seconds", Help: "How long the Cloud API took to answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wagate_slots_missed_total", Help: "Slots that passed before the try could begin; the try took a later one.",
		}),
		takenOver: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wagate_jobs_taken_over_total", Help: "Jobs of other workers that were given back or ended.",
		}),
	}
	m.held = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wagate_held_total", Help: "Messages held for something of their own, by kind: pair, ordering, window, recipients, template …",
	}, []string{"kind"})
	m.promoted = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wagate_promoted_total", Help: "Messages of starved priorities that went first, by their reserved share.",
	})
	m.unknownCodes = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wagate_unknown_answer_codes_total", Help: "Answers of the Cloud API with an error code that nobody knows.",
	})
	m.uploads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wagate_media_uploads_total", Help: "Attempts to upload media to the Cloud API by how they ended: uploaded, retried, failed.",
	}, []string{"result"})
	m.uploadTime = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "wagate_media_upload_seconds", Help: "How long an attempt to upload a media took.", Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	})
	if reg != nil {
		reg.MustRegister(m.uploads, m.uploadTime, m.tries, m.throttles, m.lateness, m.latency, m.late, m.takenOver, m.held, m.promoted, m.unknownCodes)
	}
	return m
}

func (m *metrics) tried(out sender.Outcome) {
	m.tries.WithLabelValues(out.Kind.String()).Inc()
	m.latency.Observe(out.Latency.Seconds())
}
