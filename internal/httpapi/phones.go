package httpapi

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/store"
)

type phoneView struct {
	ID                 string    `json:"phone_number_id"`
	WABAID             string    `json:"waba_id"`
	DisplayPhoneNumber string    `json:"display_phone_number"`
	MessagesPerSecond  *float64  `json:"messages_per_second"`
	Burst              int       `json:"burst"`
	Pair               *pairView `json:"pair"`
	WindowCheck        string    `json:"window_check"`
	MaxBacklog         *int64    `json:"max_backlog"`
	CreatedAt          time.Time `json:"created_at"`
	UpdatedAt          time.Time `json:"updated_at"`
}

type pairView struct {
	Seconds float64 `json:"seconds"`
	Burst   int     `json:"burst"`
}

func viewPhone(r store.PhoneNumber) phoneView {
	v := phoneView{
		ID: r.ID, WABAID: r.WABAID, DisplayPhoneNumber: r.DisplayPhoneNumber, MessagesPerSecond: r.MessagesPerSecond, Burst: r.Burst,
		WindowCheck: r.WindowCheck, MaxBacklog: r.MaxBacklog, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
	if r.PairSeconds != nil {
		v.Pair = &pairView{*r.PairSeconds, r.PairBurst}
	}
	return v
}

func (a *API) putPhoneNumber(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, phoneNumberID.MatchString, &faults)
	if err != nil {
		return err
	}
	perSecond := 80.0
	row := store.PhoneNumber{
		ID: c.Param("id"), WABAID: o.Text("waba_id", 64), DisplayPhoneNumber: o.Text("display_phone_number", 64),
		MessagesPerSecond: o.Number("messages_per_second", &perSecond, minPerSecond, maxPerSecond),
		WindowCheck:       form.Word(o, "window_check", windowCheck),
	}
	row.Burst = burst(o, row.MessagesPerSecond)
	if row.WindowCheck == "" {
		row.WindowCheck = "off"
	}
	if backlog := o.Integer("max_backlog", nil, 1, maxCount); backlog != nil {
		n := int64(*backlog)
		row.MaxBacklog = &n
	}
	row.PairSeconds, row.PairBurst = readPair(o)
	if o != nil && o.Raw("waba_id") == nil {
		o.Fault("waba_id", "is required")
	}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	// What waits belongs to the WABA of before, its limits and its owner.
	if before, err := a.Store.PhoneNumber(ctx, row.ID); err == nil && before.WABAID != row.WABAID {
		return newProblem(http.StatusConflict, "waba_differs", "The phone number belongs to another WABA: delete it there first.")
	}
	if err := a.Store.PutPhoneNumber(ctx, row); err != nil {
		return err
	}
	return a.getPhoneNumber(c, key)
}

// readPair reads the limit of one recipient: absent is Meta's (one every 6 s, 45 at once), null is none.
func readPair(o *form.Object) (*float64, int) {
	seconds := 6.0
	if o.IsNull("pair") {
		return nil, 45
	}
	pair := o.Object("pair")
	every, burst := pair.Number("seconds", &seconds, minPair, maxPair), pair.Count("burst", 45, 1, maxPairBurst)
	pair.End()
	return every, burst
}

// windowCheck says whether free-form messages are kept back whose service window is known to be closed.
func windowCheck(s string) (string, error) {
	if s != "off" && s != "enforce" {
		return "", errors.New("must be off or enforce")
	}
	return s, nil
}

func (a *API) listPhoneNumbers(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	all, err := a.Store.PhoneNumbers(ctx)
	rows := make([]store.PhoneNumber, 0, len(all))
	for _, r := range all {
		if key.MayUse(r.ID) {
			rows = append(rows, r)
		}
	}
	return list(c, "phone_numbers", rows, err, viewPhone)
}

func (a *API) deletePhoneNumber(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	id := c.Param("id")
	if a.Backlog != nil {
		waiting, err := a.Backlog(ctx, id)
		if err != nil {
			return err
		}
		for _, n := range waiting {
			if n > 0 {
				return newProblem(http.StatusConflict, "in_use", "Messages wait to be sent from this phone number.")
			}
		}
	}
	err := a.Store.DeletePhoneNumber(ctx, id)
	if errors.Is(err, store.ErrInUse) {
		return newProblem(http.StatusConflict, "in_use", "Messages of this phone number are held: cancel them, or wait until they are sent.")
	}
	return gone(c, err)
}
