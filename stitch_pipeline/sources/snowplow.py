"""Snowplow's canonical event table (``atomic.events``), and the enriched TSV from which it is loaded.

Columns: https://docs.snowplow.io/docs/fundamentals/canonical-event/. ``derived_tstamp`` orders events, because it is
the device's clock corrected by the collector's. On the web the device is ``domain_userid``. A mobile tracker sends the
device in the client-session context, with fields in camel case or, in lakes and BigQuery, in snake case. The fields of
the enriched TSV are in the order of Snowplow's analytics SDKs.
"""

from stitch_pipeline.sources.source import Layout, Source

_CLIENT_SESSION = "contexts_com_snowplowanalytics_snowplow_client_session_1[0]"
_SCREEN_VIEW = "unstruct_event_com_snowplowanalytics_mobile_screen_view_1"
_ENRICHED_CLIENT_SESSION = "contexts.data[schema=iglu:com.snowplowanalytics.snowplow/client_session/*].data"
_ENRICHED_SCREEN_VIEW = "unstruct_event.data[schema=iglu:com.snowplowanalytics.mobile/screen_view/*].data"

_FIELDS = {
    "event_id": ("event_id",),
    "project_id": ("app_id",),
    "occurred_at": ("derived_tstamp", "collector_tstamp"),
    "received_at": ("collector_tstamp",),
    "event_type": ("event",),
    "event_name": ("se_action", "event_name"),
    "platform": ("platform",),
    "user_id": ("user_id",),
    "page_url": ("page_url",),
    "referrer": ("page_referrer",),
    "utm_source": ("mkt_source",),
    "utm_medium": ("mkt_medium",),
    "utm_campaign": ("mkt_campaign",),
}
# `domain_userid` too: where it is not the device's id, as in a web view of an app.
_IDENTIFIERS = {
    "network_userid": ("network_userid",),
    "domain_userid": ("domain_userid",),
}
_EVENT_TYPES = {
    "page_view": "page",
    "unstruct/screen_view": "screen",
    "unstruct/identify": "identify",
    "unstruct": "track",
    "struct": "track",
}
_PLATFORMS = {"mob": "mobile"}

# The file has these columns in this order, without a header.
_ENRICHED_COLUMNS = """
    app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker
    v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid
    geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp ip_organization
    ip_domain ip_netspeed page_url page_title page_referrer page_urlscheme page_urlhost page_urlport page_urlpath
    page_urlquery page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery
    refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term mkt_content mkt_campaign
    contexts se_category se_action se_label se_property se_value unstruct_event tr_orderid tr_affiliation tr_total
    tr_tax tr_shipping tr_city tr_state tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity
    pp_xoffset_min pp_xoffset_max pp_yoffset_min pp_yoffset_max useragent br_name br_family br_version br_type
    br_renderengine br_lang br_features_pdf br_features_flash br_features_java br_features_director
    br_features_quicktime br_features_realplayer br_features_windowsmedia br_features_gears
    br_features_silverlight br_cookies br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer
    os_timezone dvce_type dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height
    tr_currency tr_total_base tr_tax_base tr_shipping_base ti_currency ti_price_base base_currency geo_timezone
    mkt_clickid mkt_network etl_tags dvce_sent_tstamp refr_domain_userid refr_dvce_tstamp derived_contexts
    domain_sessionid derived_tstamp event_vendor event_name event_format event_version event_fingerprint
    true_tstamp
"""

SNOWPLOW = Source(
    name="snowplow",
    documentation="https://docs.snowplow.io/docs/fundamentals/canonical-event/",
    layouts=(
        Layout(
            name="canonical columns",
            fields={
                **_FIELDS,
                "anonymous_id": ("domain_userid", f"{_CLIENT_SESSION}.userId", f"{_CLIENT_SESSION}.user_id"),
                "source_session_id": (
                    "domain_sessionid",
                    f"{_CLIENT_SESSION}.sessionId",
                    f"{_CLIENT_SESSION}.session_id",
                ),
                "page_path": ("page_urlpath", f"{_SCREEN_VIEW}.name"),
                "page_title": ("page_title", f"{_SCREEN_VIEW}.name"),
                "properties": ("unstruct_event_*", "unstruct_event"),
            },
            recognised_by=("event_id", "app_id", "event"),
            event_types=_EVENT_TYPES,
            platforms=_PLATFORMS,
            identifiers=_IDENTIFIERS,
        ),
        Layout(
            name="enriched TSV",
            fields={
                **_FIELDS,
                "anonymous_id": ("domain_userid", f"{_ENRICHED_CLIENT_SESSION}.userId"),
                "source_session_id": ("domain_sessionid", f"{_ENRICHED_CLIENT_SESSION}.sessionId"),
                "page_path": ("page_urlpath", f"{_ENRICHED_SCREEN_VIEW}.name"),
                "page_title": ("page_title", f"{_ENRICHED_SCREEN_VIEW}.name"),
                "properties": ("unstruct_event.data.data",),
            },
            columns=tuple(_ENRICHED_COLUMNS.split()),
            event_types=_EVENT_TYPES,
            platforms=_PLATFORMS,
            identifiers=_IDENTIFIERS,
        ),
    ),
    load_times=("load_tstamp", "collector_tstamp"),
)
