package intake

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/content"
)

// named are the media that a message names by ids of ours.
type named struct {
	refs []content.MediaRef
	ids  []uuid.UUID // one a ref
}

func namedMedia(refs []content.MediaRef) named {
	n := named{refs: refs}
	for _, r := range refs {
		id, _ := uuid.Parse(r.ID) // it has the form of one
		n.ids = append(n.ids, id)
	}
	return n
}

// unique are the ids, each once.
func (n named) unique() []uuid.UUID {
	ids := slices.Clone(n.ids)
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

// checkMedia adds to the faults of a message those of the media that it names: each must be the caller's, and of a fitting kind.
func (in *Intake) checkMedia(ctx context.Context, c Caller, n named, refused *Error) (*Error, error) {
	if len(n.refs) == 0 || (refused != nil && refused.Kind != Invalid) {
		return refused, nil
	}
	types, err := in.mediaTypes(ctx, c.Owner, n.unique())
	if err != nil {
		return refused, err
	}
	return judgeMedia(n, types, refused), nil
}

// checkManyMedia is checkMedia for many requests, with one look for each owner.
func (in *Intake) checkManyMedia(ctx context.Context, requests []Request, wishes []asked, refused []*Error) error {
	wanted := map[string]*named{}
	for i := range wishes {
		n, owner := wishes[i].media, requests[i].Caller.Owner
		if wanted[owner] == nil && len(n.ids) > 0 {
			wanted[owner] = &named{}
		}
		if len(n.ids) > 0 {
			wanted[owner].ids = append(wanted[owner].ids, n.ids...)
		}
	}
	for owner, of := range wanted {
		types, err := in.mediaTypes(ctx, owner, of.unique())
		if err != nil {
			return err
		}
		for i := range wishes {
			n := wishes[i].media
			if len(n.refs) > 0 && requests[i].Caller.Owner == owner && (refused[i] == nil || refused[i].Kind == Invalid) {
				refused[i] = judgeMedia(n, types, refused[i])
			}
		}
	}
	return nil
}

func (in *Intake) mediaTypes(ctx context.Context, owner string, ids []uuid.UUID) (map[uuid.UUID]string, error) {
	ctx, cancel := context.WithTimeout(ctx, connectionWait)
	defer cancel()
	types, err := in.store.OwnMediaTypes(ctx, owner, ids)
	if err != nil {
		return nil, lookup(err)
	}
	return types, nil
}

func judgeMedia(n named, types map[uuid.UUID]string, refused *Error) *Error {
	var faults []cloudapi.Fault
	for i, ref := range n.refs {
		kind, there := types[n.ids[i]]
		switch {
		case !there:
			faults = append(faults, cloudapi.Fault{Pointer: ref.Pointer, Detail: "is no media of this API key's owner"})
		case !content.MediaFits(kind, ref.Kind):
			faults = append(faults, cloudapi.Fault{Pointer: ref.Pointer, Detail: fmt.Sprintf("is a media of type %s, which cannot be sent as %s", kind, ref.Kind)})
		}
	}
	switch {
	case len(faults) == 0:
		return refused
	case refused == nil:
		// A repetition of a request that came while the media were there gets the answer of then.
		return &Error{Kind: Invalid, Faults: faults, late: true}
	}
	refused.Faults = append(refused.Faults, faults...)
	return refused
}

// mediaGone is why a message is not stored whose media was deleted at the same moment.
func mediaGone() *Error {
	return &Error{Kind: Invalid, Faults: []cloudapi.Fault{{Pointer: "", Detail: "names a media that has just been deleted"}}}
}

// useMediaAgain notes the media of a message that was made from another.
func (in *Intake) useMediaAgain(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	body, err := in.store.MessageBody(ctx, tx, id)
	if err != nil {
		return err
	}
	if ids := namedMedia(content.Media(body)).unique(); len(ids) > 0 {
		return in.store.UseMedia(ctx, tx, map[uuid.UUID][]uuid.UUID{id: ids})
	}
	return nil
}
