package simulator

import (
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

const (
	maxQRCodes = 2000 // of a phone number (Meta's limit)
	maxPrefill = 140  // characters of a message
)

// qrCode is a code, and the message that it fills in.
type qrCode struct {
	code, message string
	key           string // in the order of creation
	created       int64  // Unix time
}

type qrView struct {
	qrCode
	host, format string
}

func (q qrView) image() any {
	if q.format == "" {
		return nil
	}
	return "http://" + q.host + "/_qr/" + q.code + "." + strings.ToLower(q.format)
}

var qrNode = node[qrView]{
	name:     "MessageQRCode",
	defaults: "code,prefilled_message,deep_link_url",
	fields: map[string]func(qrView) any{
		"id":                func(qrView) any { return nil }, // the answer has none
		"code":              func(q qrView) any { return q.code },
		"prefilled_message": func(q qrView) any { return q.message },
		"deep_link_url":     func(q qrView) any { return "https://wa.me/message/" + q.code },
		"creation_time":     func(q qrView) any { return q.created },
		"qr_image_url":      func(q qrView) any { return q.image() },
	},
}

// imageFormat is that of qr_image_url.format(…) in a call's fields; PNG where they ask
// for the image without one.
func (c *call) imageFormat() string {
	fields := strings.ToUpper(c.text("fields"))
	switch {
	case strings.Contains(fields, "FORMAT(SVG)"):
		return "SVG"
	case strings.Contains(fields, "QR_IMAGE_URL"):
		return "PNG"
	}
	return ""
}

// saveQRCode answers POST /{phone}/message_qrdls: a new code or, with code, another
// message for one.
func (s *Server) saveQRCode(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	message, code := c.required("prefilled_message", maxPrefill), c.text("code")
	format := c.choice("generate_qr_image", "PNG", "SVG")
	if c.fault != nil {
		return nil, c.fault
	}
	n := p.change()
	if code != "" {
		i := n.qrCode(code)
		if i < 0 {
			return nil, errUnknownObject
		}
		n.qrCodes[i].message = message
		return qrNode.show(qrView{n.qrCodes[i], c.r.Host, format}, []string{"code", "prefilled_message", "deep_link_url", "qr_image_url"}), nil
	}
	if len(n.qrCodes) >= maxQRCodes {
		return nil, invalid(100, fmt.Sprintf("The phone number has %d QR codes already.", maxQRCodes))
	}
	n.lastQR++
	q := qrCode{message: message, key: fmt.Sprintf("%08d", n.lastQR), created: s.epoch.Add(c.now).Unix()}
	q.code = base32.StdEncoding.EncodeToString([]byte(s.fileHash(p.id, q.key)))[:14]
	n.qrCodes = append(n.qrCodes, q)
	return qrNode.show(qrView{q, c.r.Host, format}, []string{"code", "prefilled_message", "deep_link_url", "qr_image_url"}), nil
}

// qrCode is where the number has that code; below 0 where it has not.
func (n *number) qrCode(code string) int {
	for i, q := range n.qrCodes {
		if q.code == code {
			return i
		}
	}
	return -1
}

func (s *Server) listQRCodes(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	all, format := []qrView{}, c.imageFormat()
	for _, q := range p.state().qrCodes {
		all = append(all, qrView{q, c.r.Host, format})
	}
	return qrNode.page(c, all, func(q qrView) string { return q.key })
}

// readQRCode answers one code in a list, as Meta does.
func (s *Server) readQRCode(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	n := p.state()
	i := n.qrCode(c.r.PathValue("code"))
	if i < 0 {
		return nil, errUnknownObject
	}
	one, fault := qrNode.answer(c, qrView{n.qrCodes[i], c.r.Host, c.imageFormat()})
	if fault != nil {
		return nil, fault
	}
	return listing{Data: []any{one}}, nil
}

func (s *Server) deleteQRCode(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	n := p.change()
	i := n.qrCode(c.r.PathValue("code"))
	if i < 0 {
		return nil, errUnknownObject
	}
	n.qrCodes = append(n.qrCodes[:i:i], n.qrCodes[i+1:]...)
	return success, nil
}

// onePixel is an image that shows nothing: no client reads a code of the simulator's.
var onePixel, _ = base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")

// serveQRImage answers the address of a code's image, which needs no token.
func serveQRImage(w http.ResponseWriter, r *http.Request) {
	body, kind := onePixel, "image/png"
	if strings.HasSuffix(r.PathValue("file"), ".svg") {
		body, kind = []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>`), "image/svg+xml"
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body) // the client may be gone
}
