"""The program around the endpoints: connections, the way of a request, sign-in, journal, faults, control address.

The one room that knows aiohttp.
"""
