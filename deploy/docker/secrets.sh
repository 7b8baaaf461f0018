#!/bin/sh
# Write the secrets that compose.yaml mounts: STRIPE_SECRET_KEY=sk_test_... sh deploy/docker/secrets.sh
# Passwords are made once and then kept, since the database's volume keeps them too; the key is written anew.
# For a new jwt_secret rename it to jwt_secret_previous and run this again: tokens signed with it stay good until
# jwt_secret_previous is emptied. The API reads both when it starts. data_key must be kept as long as the
# database: README, "Data at rest", says how to replace it.
set -eu
: "${STRIPE_SECRET_KEY:?is not set: the secret key of your Stripe account, sk_test_...}"

# Nobody else may enter the folder. The files in it can be read by whoever has them mounted, which are
# the containers' own users: Compose keeps the owner and the mode that a file has here.
secrets=$(dirname "$0")/secrets
umask 077
mkdir -p "$secrets"
echo '*' >"$secrets/.gitignore"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

store() { # store NAME VALUE: whole or not at all
    printf '%s\n' "$2" >"$secrets/.$1"
    chmod 444 "$secrets/.$1"
    mv -f "$secrets/.$1" "$secrets/$1"
}

for name in postgres_password valkey_password jwt_secret data_key; do
    [ -s "$secrets/$name" ] || store "$name" "$(random)"
done
for name in jwt_secret_previous data_key_previous; do
    [ -e "$secrets/$name" ] || store "$name" ""
done
store database_url "postgresql://payments:$(cat "$secrets/postgres_password")@postgres:5432/payments"
store redis_url "redis://:$(cat "$secrets/valkey_password")@valkey:6379/0"
store stripe_secret_key "$STRIPE_SECRET_KEY"
# These are kept unless given. Empty: webhooks are refused, there was no secret before, no order service is told
# who calls, or shown who asks.
for name in STRIPE_WEBHOOK_SECRET STRIPE_WEBHOOK_SECRET_PREVIOUS ORDER_STATUS_TOKEN ORDER_SERVICE_TOKEN; do
    file=$(printf %s "$name" | tr '[:upper:]' '[:lower:]')
    value=$(printenv "$name" || true)
    if [ -n "$value" ] || [ ! -e "$secrets/$file" ]; then
        store "$file" "$value"
    fi
done
echo "wrote $secrets"
