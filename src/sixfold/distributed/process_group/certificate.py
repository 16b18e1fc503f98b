"""A run's certificate, which follows from the run's secret: nothing has to be handed around.

Whoever knows the secret makes the same Ed25519 key and the same self-signed certificate, presents
it, and accepts no other. Keys of a conversation come from an exchange of their own (TLS 1.3), so
who learns the secret later cannot read what was recorded.

Ed25519: S. Josefsson and I. Liusvaara, RFC 8032, of which this is the arithmetic; the key is used
by OpenSSL, which checks that the certificate fits it. What is made here is made once a process.
"""

import base64
import hmac
from functools import cache
from hashlib import sha512
from typing import NamedTuple

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_BASE_Y = 4 * pow(5, -1, _P) % _P

Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z


class Certificate(NamedTuple):
    """In the forms that OpenSSL reads."""

    der: bytes
    certificate_pem: str
    key_pem: str


@cache
def certificate_of(secret: bytes) -> Certificate:
    """The certificate of whoever knows a secret."""
    seed = hmac.digest(secret, b"tls key", "sha256")
    public = public_key(seed)
    name = _sequence(_set(_sequence(b"\x06\x03\x55\x04\x03", _tlv(0x0C, b"sixfold run"))))
    kind = _sequence(b"\x06\x03\x2b\x65\x70")  # 1.3.101.112, id-Ed25519
    lasting = _sequence(_tlv(0x17, b"200101000000Z"), _tlv(0x18, b"99991231235959Z"))
    serial = _tlv(0x02, b"\x01" + hmac.digest(secret, b"tls serial", "sha256")[:15])
    holder = _sequence(kind, _tlv(0x03, b"\x00" + public))
    told = _sequence(serial, kind, name, lasting, name, holder)
    signature = signed(told, seed)
    der = _sequence(told, kind, _tlv(0x03, b"\x00" + signature))
    key = _sequence(b"\x02\x01\x00", kind, _tlv(0x04, _tlv(0x04, seed)))
    return Certificate(der, _pem("CERTIFICATE", der), _pem("PRIVATE KEY", key))


def public_key(seed: bytes) -> bytes:
    """The key that others know, of 32 secret bytes."""
    return _encode(_times(_halves(seed)[0], _base()))


def signed(message: bytes, seed: bytes) -> bytes:
    """The signature of a message, 64 bytes."""
    scalar, prefix = _halves(seed)
    r = _number(sha512(prefix + message).digest()) % _ORDER
    point = _encode(_times(r, _base()))
    challenge = _number(sha512(point + public_key(seed) + message).digest()) % _ORDER
    return point + ((r + challenge * scalar) % _ORDER).to_bytes(32, "little")


def _halves(seed: bytes) -> tuple[int, bytes]:
    half = sha512(seed).digest()
    return (_number(half[:32]) & ((1 << 254) - 8)) | (1 << 254), half[32:]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


@cache
def _base() -> Point:
    y2 = _BASE_Y * _BASE_Y
    x2 = (y2 - 1) * pow(_D * y2 + 1, -1, _P) % _P
    x = pow(x2, (_P + 3) // 8, _P)
    if (x * x - x2) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if x & 1:
        x = _P - x
    return x, _BASE_Y, 1, x * _BASE_Y % _P


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


def _encode(point: Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


# Distinguished encoding rules: a tag, a length, a value.


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 128:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


def _sequence(*values: bytes) -> bytes:
    return _tlv(0x30, b"".join(values))


def _set(value: bytes) -> bytes:
    return _tlv(0x31, value)


def _pem(kind: str, der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n"
