package cloudapi

// FlowID gives the flow that an outbound message starts: that of an interactive
// message of type flow (interactive.action.parameters.flow_id). It is empty for any
// other message: a template's button names no flow. The body must be valid JSON.
func FlowID(body []byte) string {
	interactive := member(body, "interactive")
	if kind, _ := text(member(interactive, "type")); kind != "flow" {
		return ""
	}
	id, _ := textOrNumber(member(member(member(interactive, "action"), "parameters"), "flow_id"))
	return clip(id, maxWord)
}
