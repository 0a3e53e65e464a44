package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Scopes in table shares: what holders have, and what they have given back but may still send by for a moment.
const (
	shareHeld   = "app"
	shareEnding = "app-ending"
)

// shareGrace is the part of a lease for which what a holder gave back is kept from the others: it may have taken slots
// by its old share, and has not heard the answer yet.
const shareGrace = 2. / 15

// shareFloor is the part of an app's rate that goes to holders with little demand or none, in equal parts, so that
// their next message need not wait for a round.
const shareFloor = 1. / 50

// shareSlack keeps the sum of shares below the rate however floating point rounds.
const shareSlack = 1 - 1e-9

// ShareWant is what a WABA wants of the rate of its app.
type ShareWant struct {
	AppID string
	// Holder is the WABA.
	Holder string
	// Demand is the calls a second it would make.
	Demand float64
}

// ShareGrant is the share of its app's rate that a WABA has.
type ShareGrant struct {
	// PerSecond is the calls a second it may make.
	PerSecond float64
	// Target is what it will have when the other holders have renewed theirs: where it is more, ask again soon.
	Target float64
	// Limit is the app's rate, in calls a second.
	Limit float64
	// Limited is false where the app has no limit; all else is then 0.
	Limited bool
}

// LeaseShares takes or renews the shares of WABAs (holders) in the rates of their apps, for ttl, and gives them by
// holder. Shares that are in force never add up to more than the rate, whatever the order of calls; one that was granted
// before the rate was lowered counts until it is renewed or ends. They go by max-min fairness of the demands, and what
// nobody asks for is given out as well, in proportion to the demands.
//
// The caller counts ttl from before the call, and has no share after an error until a call succeeds: a share made smaller
// goes to others soon after the commit, whether the answer has arrived or not. A ttl is longer than the pace of renewals.
func (s *Store) LeaseShares(ctx context.Context, wants []ShareWant, ttl time.Duration) (map[string]ShareGrant, error) {
	demands := map[string]map[string]float64{} // by app and holder
	for _, w := range wants {
		if demands[w.AppID] == nil {
			demands[w.AppID] = map[string]float64{}
		}
		demands[w.AppID][w.Holder] = w.Demand
	}
	grants := make(map[string]ShareGrant, len(wants))
	if len(wants) == 0 {
		return grants, nil
	}
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		rates, err := lockApps(ctx, tx, slices.Collect(maps.Keys(demands)))
		if err != nil {
			return err
		}
		shares, err := readShares(ctx, tx, slices.Collect(maps.Keys(demands)))
		if err != nil {
			return err
		}
		var changes []shareRow
		for app, wanted := range demands {
			rate, limited := rates[app]
			if !limited {
				for holder := range wanted {
					grants[holder] = ShareGrant{}
				}
				continue
			}
			changes = append(changes, grantShares(app, rate, wanted, shares[app], grants)...)
		}
		return writeShares(ctx, tx, changes, ttl)
	})
	if err != nil {
		return nil, fmt.Errorf("leasing shares of %d apps: %w", len(demands), err)
	}
	return grants, nil
}

type shareRow struct {
	scope, app, holder string
	perSecond, demand  float64
}

// lockApps locks the given apps in the order of their ids and gives the calls a second of those that have a limit.
func lockApps(ctx context.Context, tx pgx.Tx, apps []string) (map[string]float64, error) {
	rows, err := tx.Query(ctx, `SELECT app_id, calls_per_hour FROM apps WHERE app_id = ANY($1::text[]) ORDER BY app_id FOR NO KEY UPDATE`, apps)
	if err != nil {
		return nil, err
	}
	rates := make(map[string]float64, len(apps))
	var app string
	var perHour *int
	_, err = pgx.ForEachRow(rows, []any{&app, &perHour}, func() error {
		if perHour != nil {
			rates[app] = float64(*perHour) / 3600
		}
		return nil
	})
	return rates, err
}

// readShares forgets the shares of the given apps that have ended and gives the others. The apps are locked.
func readShares(ctx context.Context, tx pgx.Tx, apps []string) (map[string][]shareRow, error) {
	rows, err := tx.Query(ctx, `
		WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now), gone AS (
			DELETE FROM shares s USING t WHERE s.scope IN ($2::text, $3::text) AND s.value = ANY($1::text[]) AND s.expires_at <= t.now
		)
		SELECT s.scope, s.value, s.holder, s.per_second, s.demand FROM shares s, t
		WHERE s.scope IN ($2::text, $3::text) AND s.value = ANY($1::text[]) AND s.expires_at > t.now`, apps, shareHeld, shareEnding)
	if err != nil {
		return nil, err
	}
	all := map[string][]shareRow{}
	var r shareRow
	_, err = pgx.ForEachRow(rows, []any{&r.scope, &r.app, &r.holder, &r.perSecond, &r.demand}, func() error {
		all[r.app] = append(all[r.app], r)
		return nil
	})
	return all, err
}

// grantShares works out what the wanting holders of one app get, into grants, and gives the rows that follow from it.
// live are the app's shares in force.
func grantShares(app string, rate float64, wanted map[string]float64, live []shareRow, grants map[string]ShareGrant) []shareRow {
	holders := slices.Sorted(maps.Keys(wanted))
	demands := make([]float64, 0, len(holders)+len(live))
	for _, h := range holders {
		demands = append(demands, wanted[h])
	}
	room := rate * shareSlack
	had, ending := map[string]float64{}, map[string]float64{}
	for _, r := range live {
		_, own := wanted[r.holder]
		switch {
		case r.scope == shareEnding:
			room -= r.perSecond
			ending[r.holder] = r.perSecond
		case own:
			had[r.holder] = r.perSecond
		default:
			room -= r.perSecond
			demands = append(demands, r.demand)
		}
	}
	targets := fairShares(rate, demands)[:len(holders)]
	// First what they have already, as far as it is due to them; then more, from what nobody holds: what one of them gives
	// back here is free later too.
	keep, more := make([]float64, len(holders)), make([]float64, len(holders))
	free := room
	for i, h := range holders {
		keep[i], more[i] = min(had[h], targets[i]), max(targets[i]-had[h], 0)
		free -= had[h]
	}
	keep, more = maxMin(room, keep), maxMin(free, more)
	var rows []shareRow
	for i, h := range holders {
		granted := keep[i] + more[i]
		grants[h] = ShareGrant{PerSecond: granted, Target: targets[i], Limit: rate, Limited: true}
		rows = append(rows, shareRow{scope: shareHeld, app: app, holder: h, perSecond: granted, demand: usable(wanted[h])})
		if back := had[h] - granted; back > 0 {
			rows = append(rows, shareRow{scope: shareEnding, app: app, holder: h, perSecond: ending[h] + back})
		}
	}
	return rows
}

func writeShares(ctx context.Context, tx pgx.Tx, shares []shareRow, ttl time.Duration) error {
	n := len(shares)
	if n == 0 {
		return nil
	}
	scopes, apps, holders := make([]string, n), make([]string, n), make([]string, n)
	rates, demands, lasting := make([]float64, n), make([]float64, n), make([]float64, n)
	for i, r := range shares {
		scopes[i], apps[i], holders[i], rates[i], demands[i], lasting[i] = r.scope, r.app, r.holder, r.perSecond, r.demand, ttl.Seconds()
		if r.scope == shareEnding {
			lasting[i] *= shareGrace
		}
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO shares (scope, value, holder, per_second, demand, expires_at)
		SELECT u.scope, u.app, u.holder, u.rate, u.demand, clock_timestamp() + make_interval(secs => u.lasting)
		FROM unnest($1::text[], $2::text[], $3::text[], $4::double precision[], $5::double precision[], $6::double precision[])
		     AS u(scope, app, holder, rate, demand, lasting)
		ON CONFLICT (scope, value, holder) DO UPDATE
		SET per_second = excluded.per_second, demand = excluded.demand, expires_at = excluded.expires_at`,
		scopes, apps, holders, rates, demands, lasting)
	return err
}

// usable makes a number of a demand that is none.
func usable(demand float64) float64 {
	if !(demand > 0) {
		return 0
	}
	return min(demand, math.MaxInt32)
}

// fairShares divides a rate among holders: max-min of their demands, each at least a small part of the rate, and what is
// left when all are satisfied in proportion. The whole rate is given out.
func fairShares(rate float64, demands []float64) []float64 {
	floored := make([]float64, len(demands))
	for i, d := range demands {
		floored[i] = max(usable(d), rate*shareFloor/float64(len(demands)))
	}
	rate *= shareSlack
	shares := maxMin(rate, floored)
	sum := 0.
	for _, s := range shares {
		sum += s
	}
	if sum > 0 && sum < rate {
		for i := range shares {
			shares[i] *= rate / sum
		}
	}
	return shares
}

// maxMin divides a rate among demands so that nobody gets more than it asks for, and nobody could get more without taking
// from one that has no more than it. A rate below zero is zero.
func maxMin(rate float64, demands []float64) []float64 {
	order := make([]int, len(demands))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(demands[a], demands[b]) })
	shares := make([]float64, len(demands))
	left := max(rate, 0)
	for n, i := range order {
		shares[i] = max(min(demands[i], left/float64(len(order)-n)), 0)
		left = max(left-shares[i], 0)
	}
	return shares
}
