"""Forms that a text of a description may have, and how each is said to who wrote another one."""

NO_NUL = r"^[^\x00]+$"
DEVICE = r"^(auto|cpu|cuda(:\d{1,2})?)$"
REVISION = r"^[0-9a-f]{40,64}$"
SLUG = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"

SAID = {
    NO_NUL: "hold no NUL character",
    DEVICE: "be auto, cpu, cuda, or one GPU such as cuda:0",
    REVISION: "be a full commit hash: 40 to 64 of the digits 0-9 and a-f",
    SLUG: "be 1 to 64 lower-case letters a-z, digits and dashes, with no dash at either end",
}
