package store

import (
	"context"
	"time"
)

// FairShares is fairShares, for tests.
func FairShares(rate float64, demands []float64) []float64 { return fairShares(rate, demands) }

// ShareFloor is the part of a rate that goes to holders without demand.
const ShareFloor = shareFloor

// RecipientKept is how long a recipient counts.
const RecipientKept = recipientKept

// TakeManagementCallAt is TakeManagementCall at a time.
func (s *Store) TakeManagementCallAt(ctx context.Context, wabaID string, now time.Time) (bool, time.Time, error) {
	return s.takeManagementCall(ctx, wabaID, &now)
}

// InboundRatesAt is InboundRates at a time.
func (s *Store) InboundRatesAt(ctx context.Context, phoneNumberIDs []string, now time.Time) (map[string]float64, error) {
	return s.inboundRates(ctx, phoneNumberIDs, &now)
}
