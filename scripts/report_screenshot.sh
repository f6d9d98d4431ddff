#!/bin/sh
# Opens a report in headless Chromium (Debian package chromium) and writes a screenshot.
#     scripts/report_screenshot.sh REPORT.html SCREENSHOT.png [HEIGHT]
# Fails if the browser logs a console message, or if the page links to a network address.
set -eu
page=$(realpath "$1")
log=$(mktemp)
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1200,"${3:-6000}" \
  --user-data-dir="$(mktemp -d)" --enable-logging=stderr --screenshot="$2" "file://$page" 2>"$log"
if grep -E "CONSOLE|Refused to load" "$log"; then exit 1; fi
if grep -oE '(src|href)="?https?://[^" ]*' "$page"; then exit 1; fi
