package ctl

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"
)

// mediaTime bounds an upload.
const mediaTime = 30 * time.Minute

var mediaCommand = command{
	name: "media", args: "upload FILE [--type T] | ID | delete ID", short: "hands a file in, whose id messages name; where Meta has it; removes it",
	help: `
upload hands a file in and prints its id. A message names it as it would a media of Meta's: {"type":"image","image":{"id":"ID"}}. The
gateway keeps the file and uploads it at the phone numbers that send it. --type is its MIME type; without it the file's name says so.

With an ID it shows what the file is, at which phone numbers Meta has it and until when that is used.

delete removes it from the gateway, unless messages that name it wait.

Examples:
  gatewayctl media upload menu.pdf
  gatewayctl media 01997b32-8a00-7000-8000-000000000001
  gatewayctl media delete 01997b32-8a00-7000-8000-000000000001`,
	run: runMedia,
}

type mediaFile struct {
	ID        string    `json:"id"`
	SHA256    string    `json:"sha256"`
	Size      int64     `json:"size"`
	MIMEType  string    `json:"mime_type"`
	Filename  string    `json:"filename"`
	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at"`
	Uploads   []struct {
		PhoneNumberID string    `json:"phone_number_id"`
		MetaID        string    `json:"meta_id"`
		ValidUntil    time.Time `json:"valid_until"`
	} `json:"uploads"`
}

func runMedia(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	kind := fs.String("type", "", "MIME type of the file, such as image/jpeg (upload)")
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	found, err := parse(fs, args, 1, 2)
	if err != nil {
		return err
	}
	switch {
	case len(found) == 2 && found[0] == "upload":
		return c.uploadMedia(ctx, found[1], *kind, *asJSON)
	case *kind != "":
		return wrong("--type is for an upload")
	case len(found) == 2 && found[0] == "delete":
		if _, err := c.api.ask(ctx, http.MethodDelete, "/v1/media/"+url.PathEscape(found[1]), nil); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.stdout, "Deleted media %s.\n", flat(found[1]))
		return err
	case len(found) == 1 && found[0] != "upload" && found[0] != "delete":
		return c.showMedia(ctx, found[0], *asJSON)
	}
	return wrong("media upload FILE, media ID or media delete ID")
}

func (c *cli) uploadMedia(ctx context.Context, path, kind string, asJSON bool) error {
	if kind == "" {
		kind = mime.TypeByExtension(filepath.Ext(path))
	}
	if kind == "" {
		return wrong("the name of %s does not say its type: give it with --type", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return wrong("%v", err)
	}
	defer func() { _ = f.Close() }() // only read, and closed by the request as well
	if err := c.api.open(); err != nil {
		return err
	}
	patient := *c.api.http
	patient.Timeout = mediaTime
	raw, err := c.api.exchange(ctx, &patient, http.MethodPost, "/v1/media?"+url.Values{"filename": {filepath.Base(path)}}.Encode(), f, "Content-Type", kind)
	if err != nil {
		return err
	}
	if asJSON {
		return c.write(raw)
	}
	var m mediaFile
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("the answer is not of the expected form: %w", err)
	}
	_, err = fmt.Fprintln(c.stdout, flat(m.ID))
	return err
}

func (c *cli) showMedia(ctx context.Context, id string, asJSON bool) error {
	var m mediaFile
	raw, err := c.api.get(ctx, "/v1/media/"+url.PathEscape(id), &m)
	if err != nil {
		return err
	}
	if asJSON {
		return c.write(raw)
	}
	tw := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(tw, "id\t%s\nfile\t%s\ntype\t%s\nbytes\t%d\nsha256\t%s\nhanded in\t%s\nlast used\t%s\n", flat(m.ID), orDash(&m.Filename), flat(m.MIMEType), m.Size,
		flat(m.SHA256), m.CreatedAt.UTC().Format(time.RFC3339), m.UsedAt.UTC().Format(time.RFC3339))
	if len(m.Uploads) > 0 {
		fmt.Fprintf(tw, "\nPHONE NUMBER\tMETA'S ID\tUSED\n")
	}
	for _, u := range m.Uploads {
		used := "no more"
		if u.ValidUntil.After(c.now()) {
			used = end(&u.ValidUntil, c.now())
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", flat(u.PhoneNumberID), flat(u.MetaID), used)
	}
	return tw.Flush()
}
