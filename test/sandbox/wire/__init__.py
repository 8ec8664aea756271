"""How HubEx's messages look on the wire: calls, answers, errors, values, routes, filters, pages.

Knows neither the data (tenant/) nor the web framework (server/).
"""
