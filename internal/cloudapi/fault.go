package cloudapi

// Fault is one thing that is wrong with a request.
type Fault struct {
	Pointer string `json:"pointer"` // RFC 6901, into the body; "" for the body as a whole
	Detail  string `json:"detail"`
}
