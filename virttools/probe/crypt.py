"""Values: SHA-512 password hashes as crypt(5) has them ("$6$"); Python has none from 3.13 on.

By Ulrich Drepper's "Unix crypt using SHA-256 and SHA-512", whose steps the comments count.
"""

from hashlib import sha512

_LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 1000  # the fewest that are allowed: the password lives for seconds
_SIZE = 64


def hashed(password: str, salt: str, rounds: int = _ROUNDS) -> str:
    """The field for shadow(5). salt: at most 16 characters of crypt's alphabet."""
    word, grain = password.encode(), salt.encode()
    digest = _first(word, grain)
    secret = _repeated(sha512(word * len(word)).digest(), len(word))  # 13 to 16
    pepper = _repeated(sha512(grain * (16 + digest[0])).digest(), len(grain))  # 17 to 20
    for number in range(rounds):  # 21
        mixed = sha512(secret if number % 2 else digest)
        if number % 3:
            mixed.update(pepper)
        if number % 7:
            mixed.update(secret)
        mixed.update(digest if number % 2 else secret)
        digest = mixed.digest()
    return f"$6$rounds={rounds}${salt}${_spelled(digest)}"


def _first(word: bytes, grain: bytes) -> bytes:
    """Steps 1 to 12."""
    other = sha512(word + grain + word).digest()
    mixed = sha512(word + grain + _repeated(other, len(word)))
    bits = len(word)
    while bits:
        mixed.update(other if bits & 1 else word)
        bits >>= 1
    return mixed.digest()


def _repeated(digest: bytes, length: int) -> bytes:
    return (digest * (length // _SIZE + 1))[:length]


def _spelled(digest: bytes) -> str:
    """Step 22: three bytes are four letters, in an order of their own."""
    text = ""
    places = (0, 21, 42)
    for _ in range(21):
        text += _letters(int.from_bytes(bytes(digest[at] for at in places)), 4)
        places = ((places[1] + 1), (places[2] + 1), (places[0] + 1))
    return text + _letters(digest[63], 2)


def _letters(number: int, count: int) -> str:
    return "".join(_LETTERS[number >> 6 * place & 63] for place in range(count))
