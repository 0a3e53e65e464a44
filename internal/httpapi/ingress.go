package httpapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"wagate/internal/store"
)

const (
	// ingressKept is how long the ingress believes a WABA's settings before it reads them again.
	ingressKept = time.Second
	// maxIngress bounds the phone numbers that are remembered.
	maxIngress = 20000
	// maxIngressWait bounds ingress_wait_seconds.
	maxIngressWait = 30
)

// ingress remembers for each phone number how the Cloud API ingress treats its messages. It is safe for concurrent use.
type ingress struct {
	read func(ctx context.Context, phoneNumberID string) (store.Ingress, error)
	now  func() time.Time

	mu    sync.Mutex
	of    map[string]remembered
	epoch int // of what is remembered
}

type remembered struct {
	store.Ingress
	until time.Time
}

// settings gives those of a phone number; none for one that is not there, of which the intake tells. While they cannot be read
// those of before are in force.
func (i *ingress) settings(ctx context.Context, phoneNumberID string) (store.Ingress, error) {
	i.mu.Lock()
	found, known := i.of[phoneNumberID]
	if known && i.now().Before(found.until) {
		i.mu.Unlock()
		return found.Ingress, nil
	}
	if known { // one request reads for all
		i.of[phoneNumberID] = remembered{found.Ingress, i.now().Add(ingressKept)}
	}
	epoch := i.epoch
	i.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, handlerTime)
	defer cancel()
	fresh, err := i.read(ctx, phoneNumberID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return store.Ingress{}, nil
	case err != nil && known:
		return found.Ingress, nil
	case err != nil:
		return store.Ingress{}, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.epoch == epoch {
		if i.of == nil || len(i.of) >= maxIngress {
			i.of = map[string]remembered{}
		}
		i.of[phoneNumberID] = remembered{fresh, i.now().Add(ingressKept)}
	}
	return fresh, nil
}

// forget has everything read again: accounts were changed by this gateway.
func (i *ingress) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.of = nil
	i.epoch++
}

func ingressAnswer(s string) (string, error) {
	if s != store.AnswerID && s != store.AnswerWAMID {
		return "", fmt.Errorf("must be %s or %s", store.AnswerID, store.AnswerWAMID)
	}
	return s, nil
}
