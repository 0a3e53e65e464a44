package app

import (
	"wagate/internal/config"
	"wagate/internal/upkeep"
)

// upkeepRules are how long what is stored is kept.
func upkeepRules(cfg config.Config) upkeep.Rules {
	return upkeep.Rules{
		AtFinal: cfg.ContentKeep.AtFinal, Content: cfg.ContentKeep.For,
		RecipientDays: cfg.RecipientDays, WebhookDays: cfg.WebhookDays, RetentionDays: cfg.RetentionDays,
	}
}
