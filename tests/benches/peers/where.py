def run(options):
    raise SystemExit("not yet")
