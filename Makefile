# Short names for what .ci/run, go and compose do; nothing here is needed to build.
SHELL := /bin/bash
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.PHONY: help build test race fuzz lint ci demo dev env up down

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## binaries into bin/
	go build -o bin/ ./cmd/...

test: ## all tests
	go test ./...

race: ## all tests with the race detector
	.ci/run race

fuzz: ## one fuzz target for longer: make fuzz PKG=./internal/sender TARGET=FuzzClassify TIME=10m
	go test -run '^$$' -fuzz '^$(TARGET)$$' -fuzztime $(or $(TIME),3m) -fuzzminimizetime 10x $(PKG)

lint: ## gofmt, vet and golangci-lint
	.ci/run gofmt vet lint

ci: ## everything a change must pass
	.ci/run

demo: ## the main job in one command
	go run ./cmd/gateway demo

dev: ## gateway, worker, simulator and Postgres to build against
	go run ./cmd/gateway dev

env: ## .env for compose, with random keys; never replaces one
	@set -euo pipefail; [ ! -e .env ] || { echo ".env is there already"; exit 0; }; umask 077; \
	hex() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }; \
	{ echo "POSTGRES_PASSWORD=$$(hex)"; echo "WAGATE_SECRET_KEY=$$(head -c 32 /dev/urandom | base64 | tr -d '\n')"; \
	  echo "WAGATE_ADMIN_KEY=$$(hex)"; echo "WAGATE_WEBHOOK_VERIFY_TOKEN=$$(hex)"; } > .env; echo "wrote .env"

up: env ## compose: Postgres, gateway, three workers
	DOCKER_BUILDKIT=1 $(COMPOSE) up -d --build --scale worker=3

down: ## compose: stop, keep the data
	$(COMPOSE) down
