#!/bin/sh
# Makes stand-ins for the base images where no registry can be reached: one Debian root file system under three names.
# Needs root, debootstrap and podman. Prints the variables that point the trial at them.
set -eu
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase \
    --include=python3,python3-dev,python3-venv,python3-pip,gcc,ca-certificates,redis-server,haproxy bookworm "$root/fs" >&2
mkdir -p "$root/fs/data" "$root/fs/usr/local/etc/haproxy"
chown 999:1000 "$root/fs/data"
ln -sf python3 "$root/fs/usr/bin/python"
for name in python:3.11-slim redis:debian haproxy:debian; do
    tar -C "$root/fs" -c . | podman import --quiet - "localhost/$name" >&2
done
echo "PYTHON_IMAGE=localhost/python:3.11-slim REDIS_IMAGE=localhost/redis:debian HAPROXY_IMAGE=localhost/haproxy:debian"
