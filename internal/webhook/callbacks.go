package webhook

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// toldChange is a change that clients may be told of, beside statuses.
type toldChange struct {
	kind   string
	waba   string
	at     time.Time
	change cloudapi.Change
}

// toldAs says which event a change is to clients; "" for none.
func toldAs(field string) string {
	switch {
	case field == "messages":
		return store.TellInbound
	case strings.HasPrefix(field, "message_template_"), strings.HasPrefix(field, "template_"):
		return store.TellTemplate
	case strings.HasPrefix(field, "account_"), strings.HasPrefix(field, "phone_number_"), field == "business_capability_update", field == "security":
		return store.TellAccount
	}
	return ""
}

func (p *payload) tell(waba string, at time.Time, c cloudapi.Change) {
	if kind := toldAs(c.Field); kind != "" && len(c.Value) > 0 {
		p.told = append(p.told, toldChange{kind, waba, at, c})
	}
}

// tellNotices writes what clients are told beside statuses: once, though a notification may be applied again.
func (r *Receiver) tellNotices(ctx context.Context, tx pgx.Tx, all []payload) error {
	some := false
	for i := range all {
		some = some || (!all[i].raw.Applied && len(all[i].told) > 0)
	}
	if !some {
		return nil
	}
	if listened, err := r.deps.Store.Listened(ctx, tx); err != nil || !listened {
		return err
	}
	var set []store.Notice
	for i := range all {
		if !all[i].raw.Applied {
			set = append(set, all[i].noticesToTell()...)
		}
	}
	return r.deps.Store.TellNotices(ctx, tx, set)
}

func (p *payload) noticesToTell() []store.Notice {
	var set []store.Notice
	add := func(c toldChange, phone string, at time.Time, value []byte) {
		set = append(set, store.Notice{
			ID: noticeID(p.raw.ID, len(set)), Kind: c.kind, WABAID: c.waba, PhoneNumberID: clean(phone), At: at, Field: clean(c.change.Field), Value: value,
		})
	}
	for _, c := range p.told {
		if c.kind != store.TellInbound {
			add(c, "", c.at, c.change.Value)
			continue
		}
		parted := cloudapi.Part(c.change.Value)
		for _, m := range cloudapi.Inbound(c.change) {
			at := m.Timestamp
			if at.IsZero() || at.After(p.raw.ReceivedAt) {
				at = p.raw.ReceivedAt
			}
			add(c, m.PhoneNumberID, at, parted.Alone("messages", m.Raw))
		}
	}
	return set
}

// noticeID gives the id of a notification's nth event to tell: a UUIDv7 of the time of receipt, the same each time.
func noticeID(raw uuid.UUID, n int) uuid.UUID {
	id, digest := raw, sha256.Sum256(fmt.Appendf(nil, "%s/told/%d", raw, n))
	copy(id[8:], digest[:8])
	id[8] = id[8]&0x3f | 0x80
	return id
}
