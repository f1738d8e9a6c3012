"""Addresses that must be refused as they stand, by the number of their row in the checklist of server-side request forgery.

``{port}`` is a port at which something listens on 127.0.0.1 and which the policy lets fetch from: no row is refused only
because of its port, but those that say so. Rows 34 to 50 are about answers, redirects and limits; they are tests of their own.
"""

REFUSED_AT_SUBMISSION = {
    1: ["http://127.0.0.1:{port}/"],
    2: ["http://2130706433:{port}/"],
    3: ["http://0x7f000001:{port}/", "http://0x7f.1:{port}/", "http://0X7F.0.0.1:{port}/"],
    4: ["http://017700000001:{port}/", "http://0177.0.0.1:{port}/"],
    5: ["http://127.1:{port}/", "http://127.0.1:{port}/"],
    6: ["http://0:{port}/", "http://0.0.0.0:{port}/"],
    7: ["http://localhost:{port}/", "http://LOCALHOST.:{port}/", "http://x.localhost:{port}/"],
    8: ["http://[::1]:{port}/", "http://[::]:{port}/"],
    9: ["http://[::ffff:127.0.0.1]:{port}/", "http://[::ffff:7f00:1]:{port}/"],
    10: ["http://[::ffff:100.100.100.200]:{port}/"],
    11: ["http://[::127.0.0.1]:{port}/"],
    12: ["http://[64:ff9b::7f00:1]:{port}/", "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::7f00:1]/"],
    13: ["http://[2002:7f00:1::]:{port}/", "http://[2002:a9fe:a9fe::]/", "http://[2001:0:7f00:1::]/"],
    14: ["http://[fec0::1]/"],
    15: ["http://[fd00:ec2::254]/latest/meta-data/"],
    16: ["http://[fe80::1%25eth0]/", "http://[fe80::1]/"],
    17: ["http://169.254.169.254/latest/meta-data/"],
    18: ["http://metadata.google.internal/computeMetadata/v1/", "http://metadata/computeMetadata/v1/"],
    19: ["http://100.100.100.200/latest/meta-data/"],
    20: ["http://192.0.0.192/opc/v2/"],
    21: ["http://168.63.129.16/"],
    22: ["http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/"],
    23: ["http://198.18.0.1/", "http://224.0.0.1/", "http://240.0.0.1/", "http://255.255.255.255/"],
    24: ["http://①②⑦.⓪.⓪.①:{port}/", "http://1２7.0.0.1:{port}/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/"],
    25: ["http://127。0。0。1:{port}/"],
    26: [
        "http://example.com@127.0.0.1:{port}/",
        "http://user:secret@example.com/",
        "http://127.0.0.1:{port}#@example.com/",
    ],
    27: ["http://127.0.0.1:{port}\\@example.com/", "http://example.com\\@127.0.0.1:{port}/"],
    28: ["http://127.0.0.1:{port}:443/", "http://foo@127.0.0.1:{port}@example.com/"],
    29: [
        "http://127.0.0.1%00.example.com/",
        "http://127.0.0.1%2f@example.com/",
        "http://127.0.0.1\t:{port}/",
        "http://127.0.0.1:{port}\n.example.com/",
        " http://127.0.0.1:{port}/",
        "http://127.0.0.1\u200b:{port}/",
    ],
    30: ["http:/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "//127.0.0.1:{port}/a.png", "/a.png", ""],
    31: [
        *(
            "file:///etc/hostname",
            "ftp://127.0.0.1:{port}/",
            "gopher://127.0.0.1:{port}/_INFO",
            "data:text/html,x",
        ),
        *("jar:http://127.0.0.1:{port}/!/", "dict://127.0.0.1:{port}/info", "ldap://127.0.0.1:{port}/"),
        *(
            "unix:///var/run/docker.sock",
            "blob:http://127.0.0.1:{port}/1",
            "view-source:http://127.0.0.1:{port}/",
        ),
        *("javascript:alert(1)", "s3://bucket/key", "ws://127.0.0.1:{port}/"),
    ],
    32: [
        *(f"http://example.com:{port}/" for port in (22, 25, 6379, 11211, 5432, 2375, 9200, 0, 65536, 99999)),
        *("http://example.com:-80/", "http://example.com:8o/", "http://example.com:٨٠/"),
    ],
    46: [
        "http://images.example.net/api/images",
        "https://a.images.example.net/",
        "http://IMAGES.example.net./",
    ],
}

OWN_HOSTS = ("images.example.net", ".images.example.net")

PRIVATE_ANSWERS = {
    "127.0.0.1.nip.io": ["127.0.0.1"],
    "localtest.me": ["127.0.0.1", "::1"],
    "spoofed.internal.example": ["10.0.0.5"],
    "mixed.example": ["93.184.216.34", "10.0.0.5"],
    "six.example": ["93.184.216.34", "::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "alias.example": ["169.254.169.254"],
}
"""Rows 33, 34, 35 and 37: what names resolve to. A chain of CNAMEs shows only where it ends."""


def refused_at_submission(port: int) -> list[str]:
    """Return the addresses, with the port at which a decoy listens."""
    return [url.replace("{port}", str(port)) for urls in REFUSED_AT_SUBMISSION.values() for url in urls]
