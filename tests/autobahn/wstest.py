# Starts the Autobahn test suite (Python 2): its command line as it is, but over ws:// only, and its servers listen on
# loopback alone, at any free port, which they print.
from __future__ import print_function

import os
import site
import sys
import types

# Not only a path: zope is a package of several parts, which its .pth files put together.
site.addsitedir(os.environ['PYTHONPATH'])

import twisted.internet

# In the place of Twisted's TLS, which would need OpenSSL's headers.
ssl = types.ModuleType('twisted.internet.ssl')


class NoTls(object):
    pass


ssl.ClientContextFactory = ssl.DefaultOpenSSLContextFactory = ssl.optionsForClientTLS = NoTls
sys.modules['twisted.internet.ssl'] = twisted.internet.ssl = ssl

# Before the reactor is used: it chooses one.
import autobahntestsuite.choosereactor
from twisted.internet import reactor

listen = reactor.listenTCP


def listen_on_loopback(port, factory, backlog=50, interface=''):
    listening = listen(0, factory, backlog, '127.0.0.1')
    # The server compares a request's Host with it.
    factory.externalPort = listening.getHost().port
    print('listening on 127.0.0.1:%d' % factory.externalPort)
    sys.stdout.flush()
    return listening


reactor.listenTCP = listen_on_loopback

from autobahntestsuite.wstest import run

run()
