package simulator

// waIDOf is the WhatsApp ID of a number's digits. Two countries have two spellings of
// one mobile number, of which WhatsApp knows one user by one:
//
//   - Brazil added a 9 before the eight digits of mobile numbers. Area codes below 31
//     have the 9 in the WhatsApp ID, those from 31 on do not.
//   - Mexico had a 1 after the country code of mobile numbers; the WhatsApp ID has it.
func waIDOf(digits string) string {
	switch {
	case len(digits) == 13 && digits[:2] == "55" && digits[4] == '9' && digits[2:4] >= "31":
		return digits[:4] + digits[5:]
	case len(digits) == 12 && digits[:2] == "55" && digits[4] >= '6' && digits[2:4] >= "11" && digits[2:4] < "31":
		return digits[:4] + "9" + digits[4:]
	case len(digits) == 12 && digits[:2] == "52":
		return "521" + digits[2:]
	}
	return digits
}
