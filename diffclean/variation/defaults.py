"""The defaults of `variate` that do not depend on the engine. This file imports nothing, so that `--help` is fast."""

ENGINE = "micro"
RUNTIME = "auto"
GUIDANCE_INTERVAL = (0.0, 1.0)
VARIATIONS = 1
SEED = 0
SIZE = "source"
FIT = "squash"
FORMAT = "png"
COLOR_TRANSFER = "none"
PIXEL_LIMIT = 100_000_000
BYTE_LIMIT = 512 * 2**20
TIME_LIMIT_S = 30
FULL_NAMES = False
LABELS = "keep"
EXECUTOR = "local"
RAY_ADDRESS = "auto"
RAY_WAIT_S = 0.0
