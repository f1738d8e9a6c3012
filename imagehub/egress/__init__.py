"""The guard of every request whose address comes from a user, a page or the body of a request.

Fixed services that the operator configures (the sign-in provider, the bucket, a model hub) go through their own libraries.
A policy (:mod:`imagehub.egress.policy`) says what may be reached. It is asked twice: about the text of an address
when it comes in and at each redirect (:mod:`imagehub.egress.urls`), and about every address of the network that a connection
is about to be made to (:mod:`imagehub.egress.client`, :mod:`imagehub.egress.scrapy_guard`). Only the second is a
wall: what a name resolves to is known no sooner.

Nothing here but :mod:`imagehub.egress.site` knows Django, so that child programs use it.
"""
