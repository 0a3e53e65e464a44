package cluster

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"wagate/internal/simulator"
)

// BenchmarkWorkersUnderOneApp runs 1, 2, 4 and 8 workers over four WABAs with three phone numbers each: a limit for every
// phone number, one for every WABA and one for the app of all, each set to 95 % of what the simulator lets through. While
// the minute runs that is counted, workers leave and join; after it one is stopped for 3 s and continued.
func BenchmarkWorkersUnderOneApp(b *testing.B) {
	for _, n := range []int{1, 2, 4, 8} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				workersUnderOneApp(b, n)
			}
		})
	}
}

func workersUnderOneApp(b *testing.B, n int) {
	const simPhone, simWABA, simApp, share = 80, 50, 160, 0.95
	c := newCluster(b, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 30 * time.Millisecond, StatusDelay: 100 * time.Millisecond})
	c.call(http.MethodPut, "/v1/apps/300", map[string]any{"app_secret": appSecret, "calls_per_hour": int(simApp * share * 3600)}, nil)
	if err := c.sim.SetLimits("app", "300", simulator.Limit{Max: simApp}); err != nil {
		b.Fatal(err)
	}
	for w := range 4 {
		a := account{waba: fmt.Sprint(100 + w), wabaRate: simWABA * share, phoneRate: simPhone * share, simPhone: simPhone, simWABA: simWABA}
		for p := range 3 {
			a.phones = append(a.phones, fmt.Sprintf("%d%d", 100+w, p))
		}
		c.account(a)
		for _, phone := range a.phones {
			c.fill(a.waba, phone, 2000, 3)
		}
	}
	var workers []*worker
	for range n {
		workers = append(workers, c.startWorker())
	}
	c.until(time.Minute, "full speed", func(context.Context) (bool, string) {
		return c.sim.Ledger().Totals.Accepted > 1000, ""
	})
	start, startElapsed := time.Now(), c.sim.Elapsed()
	wait := func(at time.Duration) {
		timer := time.NewTimer(time.Until(start.Add(at)))
		<-timer.C
	}
	wait(15 * time.Second)
	workers = append(workers, c.startWorker()) // joins
	wait(30 * time.Second)
	if err := workers[0].stop(); err != nil { // leaves
		b.Fatal(err)
	}
	wait(45 * time.Second)
	workers = append(workers, c.startWorker())
	wait(time.Minute)
	end := time.Now()
	refused := c.sim.Ledger().Totals.Refused
	workers[1].signal(syscall.SIGSTOP)
	wait(63 * time.Second)
	workers[1].signal(syscall.SIGCONT)
	wait(70 * time.Second)
	l := c.sim.Ledger()
	by := arrivals(c.accepts(), start, end)
	total := 0
	for _, times := range by {
		total += len(times)
	}
	perSecond := make([]int, int(end.Sub(start).Seconds())+1)
	for _, times := range by {
		for _, at := range times {
			perSecond[int(at.Seconds())]++
		}
	}
	b.Logf("messages by second: %v", perSecond)
	for _, r := range c.sim.Refusals(0, 20) {
		b.Logf("refused at %v by the limit of %s %s", time.Duration(r.AtMS)*time.Millisecond-startElapsed, r.Scope, r.ID)
	}
	b.ReportMetric(100*float64(total)/end.Sub(start).Seconds()/(simApp*share), "%of-configured")
	b.ReportMetric(float64(refused), "refused")
	b.ReportMetric(float64(l.Totals.Refused-refused), "refused-after-SIGSTOP")
	b.ReportMetric(float64(l.Totals.ExtraAccepts), "sent-twice")
	b.ReportMetric(float64(l.Apps[len(l.Apps)-1].PeakPerSecond), "app-peak/s")
	wabaPeak, phonePeak := 0, 0
	for _, w := range l.WABAs {
		wabaPeak = max(wabaPeak, w.PeakPerSecond)
	}
	for _, p := range l.Phones {
		phonePeak = max(phonePeak, p.PeakPerSecond)
	}
	b.ReportMetric(float64(wabaPeak), "WABA-peak/s")
	b.ReportMetric(float64(phonePeak), "phone-peak/s")
}

// BenchmarkSharedWABA has a WABA at 47.5/s over phone numbers with backlogs of 100,000 and 100,000, and 5/s arriving at a
// third, and prints how long those of the third took.
func BenchmarkSharedWABA(b *testing.B) {
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 30 * time.Millisecond, StatusDelay: time.Hour})
		c.account(account{waba: "100", wabaRate: 47.5, phones: []string{"1001", "1002", "1003"}, phoneRate: 76, simPhone: 80, simWABA: 50})
		c.fill("100", "1001", 100_000, 3)
		c.fill("100", "1002", 100_000, 3)
		c.startWorker()
		c.startWorker()
		c.until(time.Minute, "the backlogs sending", func(context.Context) (bool, string) { return c.sim.Ledger().Totals.Accepted > 300, "" })
		took := c.trickle("1003", 150, 200*time.Millisecond, nil)
		b.ReportMetric(milliseconds(took, .5), "p50-ms")
		b.ReportMetric(milliseconds(took, .99), "p99-ms")
		b.ReportMetric(milliseconds(took, 1), "max-ms")
		b.ReportMetric(float64(c.sim.Ledger().Totals.Refused), "refused")
	}
}

// BenchmarkMillionWaiting has a WABA at 200 messages an hour with 1,000,000 waiting. It prints what that costs in Postgres
// and worker over a minute, beside nothing else, and then how long the messages of another WABA take.
func BenchmarkMillionWaiting(b *testing.B) {
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 30 * time.Millisecond, StatusDelay: time.Hour})
		c.sim.SetWebhook("", "")
		c.account(account{waba: "100", perHour: 200, phones: []string{"1001"}, phoneRate: 76, simPhone: 80, simWABA: 200, simWABAWindow: time.Hour})
		c.account(account{waba: "200", phones: []string{"2001"}, phoneRate: 76, simPhone: 80})
		idle := c.startWorker()
		c.settle()
		emptyWork, emptyData := c.load(time.Minute, idle)
		c.fill("100", "1001", 1_000_000, 3)
		if _, err := c.pool.Exec(b.Context(), `VACUUM ANALYZE messages, river_job`); err != nil {
			b.Fatal(err)
		}
		c.settle()
		work, data := c.load(time.Minute, idle)
		took := c.trickle("2001", 150, 200*time.Millisecond, nil)
		percent := func(d time.Duration) float64 { return 100 * d.Seconds() / 60 }
		b.ReportMetric(percent(work), "worker-%core")
		b.ReportMetric(percent(data), "postgres-%core")
		b.ReportMetric(percent(emptyWork), "worker-%core-without")
		b.ReportMetric(percent(emptyData), "postgres-%core-without")
		b.ReportMetric(milliseconds(took, .5), "other-p50-ms")
		b.ReportMetric(milliseconds(took, .99), "other-p99-ms")
		b.ReportMetric(float64(c.sim.Ledger().Totals.Refused), "refused")
	}
}

// BenchmarkManyLanes has 500 lanes with limits of 0.2 to 20/s that add up to 2,000/s, all with a backlog, and compares
// over 120 s what each sent with its own limit.
func BenchmarkManyLanes(b *testing.B) {
	const lanes, per, seconds = 500, 10, 120
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 30 * time.Millisecond, StatusDelay: time.Hour})
		c.sim.SetWebhook("", "")
		rates := map[string]float64{}
		for w := range lanes / per {
			a := account{waba: fmt.Sprint(1000 + w)}
			for p := range per {
				phone := fmt.Sprintf("%d%02d", 1000+w, p)
				a.phones = append(a.phones, phone)
				rates[phone] = laneRate(float64(w*per+p) / (lanes - 1))
			}
			a.phoneRateByIdx = func(i int) float64 { return rates[a.phones[i]] }
			c.account(a)
			for _, phone := range a.phones {
				c.fill(a.waba, phone, int(rates[phone]*(seconds+60))+10, 3)
			}
		}
		workers := []*worker{c.startWorker(), c.startWorker()}
		c.until(2*time.Minute, "all lanes sending", func(context.Context) (bool, string) {
			n := 0
			for _, p := range c.sim.Ledger().Phones {
				if p.Accepted > 0 {
					n++
				}
			}
			return n == lanes, fmt.Sprint(n)
		})
		w0, d0 := c.cpu(workers...)
		start := time.Now()
		timer := time.NewTimer(seconds * time.Second)
		<-timer.C
		end := time.Now()
		w1, d1 := c.cpu(workers...)
		by := arrivals(c.accepts(), start, end)
		off, worst, sum, total := 0, 0.0, 0.0, 0
		for phone, rate := range rates {
			want := rate * end.Sub(start).Seconds()
			got := float64(len(by[phone]))
			sum += want
			total += len(by[phone])
			if d := got - want; d > max(1, 0.02*want) || -d > max(1, 0.02*want) {
				off++
				b.Logf("phone number %s at %.2f/s: %v of %.1f", phone, rate, got, want)
				worst = max(worst, max(d, -d)/want)
			}
		}
		b.ReportMetric(float64(off), "lanes-off")
		b.ReportMetric(100*worst, "worst-%off")
		b.ReportMetric(100*float64(total)/sum, "%of-all")
		b.ReportMetric(100*(w1-w0).Seconds()/end.Sub(start).Seconds(), "workers-%core")
		b.ReportMetric(100*(d1-d0).Seconds()/end.Sub(start).Seconds(), "postgres-%core")
	}
}

// laneRate spreads rates over 0.2 to 20 so that their mean is 4.
func laneRate(x float64) float64 {
	x2 := x * x
	return 0.2 + 19.8*x2*x2*(0.79+0.21*x) // the mean of x⁴ is 1/5, that of x⁵ 1/6
}

// BenchmarkHalvedLimit halves a phone number's limit at the simulator for 5 minutes, unannounced, and prints refusals and
// rates: from 10 s after, and from 60 s after its return.
func BenchmarkHalvedLimit(b *testing.B) {
	const limit, rate, before, halved, after = 80, 76.0, 20 * time.Second, 5 * time.Minute, 90 * time.Second
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 60 * time.Millisecond, StatusDelay: time.Hour})
		c.sim.SetWebhook("", "")
		c.account(account{waba: "100", phones: []string{"1001"}, phoneRate: rate, simPhone: limit})
		c.fill("100", "1001", 40_000, 3)
		c.startWorker()
		c.startWorker()
		c.until(time.Minute, "full speed", func(context.Context) (bool, string) { return c.sim.Ledger().Totals.Accepted > 300, "" })
		pause := func(d time.Duration) {
			timer := time.NewTimer(d)
			<-timer.C
		}
		set := func(n int) {
			if err := c.sim.SetLimits("phone", "1001", simulator.Limit{Max: n}); err != nil {
				b.Fatal(err)
			}
		}
		pause(before)
		set(limit / 2)
		at, atElapsed := time.Now(), c.sim.Elapsed()
		pause(halved)
		set(limit)
		back := time.Now()
		pause(after)
		accepts := c.accepts()
		refusals := c.sim.Refusals(0, 10_000)
		var times []time.Duration
		for _, r := range refusals {
			if t := time.Duration(r.AtMS)*time.Millisecond - atElapsed; t >= 10*time.Second {
				times = append(times, t)
			}
		}
		slices.Sort(times)
		count := func(from, to time.Time) float64 {
			return float64(len(arrivals(accepts, from, to)["1001"])) / to.Sub(from).Seconds()
		}
		b.ReportMetric(float64(simulator.Peak(times, 10*time.Second)), "refusals-in-10s")
		b.ReportMetric(100*count(at.Add(10*time.Second), back)/(limit/2), "%of-halved")
		b.ReportMetric(100*float64(len(refusals))/float64(len(accepts)), "%refused")
		b.ReportMetric(100*count(back.Add(60*time.Second), back.Add(after))/rate, "%of-old-after-60s")
	}
}

// BenchmarkBusyRecipient sends 200 messages to one recipient among 10,000 others, with a pair limit of one per 60 ms and
// 45 at once on both sides.
func BenchmarkBusyRecipient(b *testing.B) {
	const rate, others, same, every, burst = 76.0, 10_000, 200, 60 * time.Millisecond, 45
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 30 * time.Millisecond, StatusDelay: time.Hour})
		c.sim.SetWebhook("", "")
		c.account(account{waba: "100", phones: []string{"1001"}, phoneRate: rate, simPhone: 80, pair: map[string]any{"seconds": every.Seconds(), "burst": burst}})
		if err := c.sim.SetPairLimit("1001", burst, every); err != nil {
			b.Fatal(err)
		}
		var all []map[string]any
		for i, m := range texts(others) {
			all = append(all, m)
			if i < same { // every other one at the start: faster than the pair limit
				all = append(all, map[string]any{"to": "+442079460100", "type": "text", "text": map[string]any{"body": "again"}})
			}
		}
		c.accept("1001", all)
		c.startWorker()
		c.untilStatus(5*time.Minute, others+same, "accepted")
		accepts := c.accepts()
		var busy []time.Duration
		first := accepts[0].ArrivalUnixNS
		one := c.messagesTo("+442079460100")
		for _, a := range accepts {
			if one[a.OurID] {
				busy = append(busy, time.Duration(a.ArrivalUnixNS-first))
			}
		}
		slices.Sort(busy)
		took := time.Duration(accepts[len(accepts)-1].ArrivalUnixNS - first)
		pairs := 0
		for _, r := range c.sim.Refusals(0, 10_000) {
			if r.Code == 131056 {
				pairs++
			}
		}
		b.ReportMetric(100*float64(len(accepts)-1)/took.Seconds()/rate, "%of-the-lane")
		b.ReportMetric((busy[len(busy)-1] - busy[0]).Seconds(), "seconds-for-200")
		b.ReportMetric((time.Duration(same-burst) * every).Seconds(), "at-the-pair-limit")
		b.ReportMetric(float64(pairs), "131056")
		var rows int
		if err := c.pool.QueryRow(b.Context(), `SELECT count(*) FROM pair_states`).Scan(&rows); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(rows), "pair-rows")
	}
}
