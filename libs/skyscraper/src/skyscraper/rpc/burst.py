"""What callers, the burst gateway and its machines tell each other beside the protocol: gRPC metadata."""

# Caller to gateway: whose money, the estimated work, and what sending a byte is worth (normalised quality; the link
# goes to the highest bid).
TENANT = "sky-tenant"
ESTIMATED_CORE_SECONDS = "sky-estimated-core-seconds"
BID_PER_BYTE = "sky-bid-per-byte"
# Machine to gateway, and gateway to caller, with the answer: the work that was measured.
WORK_CORE_SECONDS = "sky-work-core-seconds"
# Gateway to caller: what was charged, in nano-dollars.
CHARGED_NANO_USD = "sky-charged-nano-usd"
# Machine to gateway, with a refusal: the request was not begun, and cost nothing.
NOT_BEGUN = "sky-not-begun"
# Gateway to caller, with a refusal: why, one of a bounded set of words.
REFUSAL = "sky-refusal"
